import type pg from 'pg';

/** Decides when a query is sent and when its result is returned. Gets its text, too. */
export type QueryGate = <Answer>(query: () => Promise<Answer>, text: string) => Promise<Answer>;

/** A real pool whose queries pass through a gate. */
export function gatedPool(pool: pg.Pool, gate: QueryGate): pg.Pool {
  return proxied(pool, (key, method) => {
    if (key === 'query') return gated(method, gate);
    if (key !== 'connect') return method;
    return (...args) => {
      const done = args.at(-1);
      if (typeof done !== 'function') {
        return Promise.resolve(method()).then((client) => gatedClient(client as object, gate));
      }
      const onClient = (error: unknown, client?: object, release?: unknown) =>
        done(error, client && gatedClient(client, gate), release);
      return method(onClient);
    };
  });
}

function gatedClient<Client extends object>(client: Client, gate: QueryGate): Client {
  return proxied(client, (key, method) => (key === 'query' ? gated(method, gate) : method));
}

type Method = (...args: unknown[]) => unknown;

/** Returns a proxy of the object with replaced methods. */
function proxied<T extends object>(
  object: T,
  replace: (key: string | symbol, method: Method) => Method,
): T {
  return new Proxy(object, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key);
      return typeof value === 'function' ? replace(key, value.bind(target)) : value;
    },
  });
}

/** Wraps a query method; supports callbacks and promises, as pg does. */
function gated(query: Method, gate: QueryGate): Method {
  return (...args) => {
    const done = args.at(-1);
    const text = textOf(args[0]);
    if (typeof done !== 'function') return gate(() => Promise.resolve(query(...args)), text);
    const asPromise = () =>
      new Promise((resolve, reject) => {
        query(...args.slice(0, -1), (error: unknown, result: unknown) =>
          error ? reject(error) : resolve(result),
        );
      });
    gate(asPromise, text).then(
      (result) => done(null, result),
      (error) => done(error),
    );
    return undefined;
  };
}

function textOf(query: unknown): string {
  return String(
    typeof query === 'object' && query !== null && 'text' in query ? query.text : query,
  );
}
