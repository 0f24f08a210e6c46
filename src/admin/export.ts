/**
 * Sends everything stored about a user, as a file.
 *
 * @module
 */
import { once } from 'node:events';
import type { Response } from 'express';
import type { ExportedSession } from './sessions.js';

/** Sends the pages as one JSON document, as fast as the client reads. */
export async function sendExport(
  response: Response,
  user: string,
  pages: AsyncGenerator<readonly ExportedSession[], void, undefined>,
): Promise<void> {
  // If the first page fails, an error page can still be sent.
  let page = await pages.next();
  const closing = new AbortController();
  response.once('close', () => closing.abort());
  response.setHeader('Content-Type', 'application/json; charset=utf-8');
  response.setHeader('Content-Disposition', 'attachment; filename="sessions.json"');
  const head = JSON.stringify({ user, exportedAt: new Date() }).slice(0, -1);
  response.write(`${head},"sessions":[`);
  try {
    for (let separator = ''; !page.done; page = await pages.next()) {
      for (const session of page.value) {
        const isFull = !response.write(separator + exportedText(session));
        if (isFull) await once(response, 'drain', { signal: closing.signal });
        separator = ',\n';
      }
      closing.signal.throwIfAborted();
    }
    response.end(']}\n');
  } catch (error) {
    // An incomplete document must not look complete.
    response.destroy();
    if (!closing.signal.aborted) throw error;
  }
}

function exportedText({ facts, state, data }: ExportedSession): string {
  const { id, userId, createdAt, lastSeenAt, expiresAt, bytes } = facts;
  const head = JSON.stringify({
    id,
    userId,
    state,
    createdAt: new Date(createdAt),
    lastSeenAt: new Date(lastSeenAt),
    expiresAt: new Date(expiresAt),
    bytes,
  }).slice(0, -1);
  return `${head},"data":${data === undefined ? 'null' : jsonOf(data)}}`;
}

/** Returns JSON unchanged, byte for byte. Converts the text of another serializer to a JSON string. */
function jsonOf(text: string): string {
  try {
    JSON.parse(text);
    return text;
  } catch {
    return JSON.stringify(text);
  }
}
