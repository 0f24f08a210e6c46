/** One server-sent event. */
export interface StreamEvent {
  readonly name: string;
  readonly data: string;
}

/** Yields the server-sent events of a response as they arrive. */
export async function* eventsOf(response: Response): AsyncGenerator<StreamEvent> {
  if (!response.body) return;
  let rest = '';
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    const blocks = (rest + piece).split('\n\n');
    rest = blocks.pop() ?? '';
    for (const block of blocks) yield eventFrom(block);
  }
}

function eventFrom(block: string): StreamEvent {
  const fields = block.split('\n').map((line) => line.split(/: ?(.*)/s, 2));
  return {
    name: fields.find(([name]) => name === 'event')?.[1] ?? 'message',
    data: fields.flatMap(([name, value]) => (name === 'data' ? [value ?? ''] : [])).join('\n'),
  };
}

const limitMs = 60_000;

/** Reads until an event matches. Throws if the stream ends before, or after a minute. */
export async function nextEvent(
  events: AsyncIterator<StreamEvent>,
  found: (event: StreamEvent) => boolean,
): Promise<StreamEvent> {
  const seen: string[] = [];
  const inVain = (why: string) => new Error(`${why} after: ${seen.join(', ') || 'nothing'}`);
  let limit: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    limit = setTimeout(() => reject(inVain(`${limitMs} ms went by`)), limitMs);
  });
  try {
    for (;;) {
      const { value, done } = await Promise.race([events.next(), late]);
      if (done) throw inVain('The stream ended');
      if (found(value)) return value;
      seen.push(value.name);
    }
  } finally {
    clearTimeout(limit);
  }
}
