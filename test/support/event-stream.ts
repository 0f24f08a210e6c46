/** One server-sent event. */
export interface StreamEvent {
  readonly name: string;
  readonly data: string;
}

/** The events of an open response with a server-sent event stream, as they come. */
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

/** Reads until an event is found; fails where the stream ends without. */
export async function nextEvent(
  events: AsyncIterator<StreamEvent>,
  found: (event: StreamEvent) => boolean,
): Promise<StreamEvent> {
  const seen: string[] = [];
  for (;;) {
    const { value, done } = await events.next();
    if (done) throw new Error(`The stream ended after: ${seen.join(', ') || 'nothing'}`);
    if (found(value)) return value;
    seen.push(value.name);
  }
}
