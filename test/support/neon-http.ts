import { once } from 'node:events';
import { createServer } from 'node:http';
import { json } from 'node:stream/consumers';
import pg from 'pg';

/** A stand-in for Neon's `/sql` endpoint, in front of another Postgres. */
export interface NeonEndpoint {
  /** For `neonConfig.fetchEndpoint`. */
  readonly url: string;
  /** The number of requests whose client disconnected before the response. */
  readonly abandoned: number;
  close(): Promise<void>;
}

const AS_TEXT = { getTypeParser: () => (value: string) => value };

/** Starts an endpoint that sends all statements to this database. */
export async function startNeonEndpoint(databaseUrl: string): Promise<NeonEndpoint> {
  const pool = new pg.Pool({ connectionString: databaseUrl });
  pool.on('error', () => {});
  let abandoned = 0;

  async function answer(body: unknown): Promise<[status: number, response: object]> {
    if (!isStatement(body)) return [404, {}];
    const { query: text, params: values } = body;
    try {
      const result = await pool.query({ text, values, rowMode: 'array', types: AS_TEXT });
      const { command, rowCount, rows } = result;
      const fields = result.fields.map(({ name, dataTypeID }) => ({ name, dataTypeID }));
      return [200, { command, rowCount, rows, fields, rowAsArray: true }];
    } catch (error) {
      if (!(error instanceof pg.DatabaseError)) return [503, {}];
      return [400, { ...error, message: error.message }];
    }
  }

  const server = createServer(async (request, response) => {
    response.on('close', () => {
      if (!response.writableFinished) abandoned += 1;
    });
    const [status, body] = await answer(await json(request).catch(() => undefined));
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    url: `http://127.0.0.1:${address.port}/sql`,
    get abandoned() {
      return abandoned;
    },
    async close() {
      server.closeAllConnections();
      server.close();
      await pool.end();
    },
  };
}

interface Statement {
  readonly query: string;
  readonly params: unknown[];
}

function isStatement(value: unknown): value is Statement {
  return typeof value === 'object' && value !== null && 'query' in value && 'params' in value;
}
