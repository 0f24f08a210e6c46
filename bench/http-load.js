/**
 * The HTTP load generator, in a separate process. Every user has a keep-alive connection and at most one request in
 * flight.
 *
 * @module
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import { Worker } from 'node:worker_threads';
import { cookieOf } from './sessions.js';
import { Latencies, sharedClockMs } from './stats.js';

const PACER = new URL('./pacer.js', import.meta.url);

/** Time for the pacer's thread to start. */
const PACER_STARTS_WITHIN_MS = 300;

/** Connections for visits, which do not measure speed. */
const VISIT_CONNECTIONS = 8;

/** A keep-alive connection to the app. It understands only as much HTTP as the app's responses need. */
class Connection {
  #text = '';
  /** @type {(views: number) => void} */
  #answered = () => {};

  /**
   * @param {number} port
   * @param {(error: Error) => void} fail called at an answer that is not 200, or a lost connection
   */
  constructor(port, fail) {
    this.fail = fail;
    this.socket = connect({ port, host: '127.0.0.1', noDelay: true });
    this.socket.setEncoding('latin1');
    this.socket.on('data', (chunk) => this.#read(chunk));
    this.socket.on('error', fail);
    this.socket.on('end', () => fail(new Error('the app closed a connection')));
  }

  /**
   * @param {string} path
   * @param {string} cookie
   * @param {(views: number) => void} answered gets the session's view count
   */
  request(path, cookie, answered) {
    this.#answered = answered;
    this.socket.write(`GET /${path} HTTP/1.1\r\nhost: localhost\r\ncookie: ${cookie}\r\n\r\n`);
  }

  /** @param {string} chunk */
  #read(chunk) {
    this.#text += chunk;
    const bodyAt = this.#text.indexOf('\r\n\r\n') + 4;
    if (bodyAt < 4) return;
    const length = Number(/\r\ncontent-length: (\d+)/i.exec(this.#text)?.[1]);
    if (this.#text.length < bodyAt + length) return;
    const head = this.#text.slice(0, this.#text.indexOf('\r\n'));
    const body = this.#text.slice(bodyAt);
    this.#text = '';
    if (head.startsWith('HTTP/1.1 200 ')) this.#answered(JSON.parse(body).views);
    else this.fail(new Error(`the app answered ${head}: ${body}`));
  }
}

/** A returning user, who checks that the app remembers the previous request. */
class User {
  /** @type {number | undefined} */
  #views;

  /**
   * @param {Connection} connection
   * @param {number} number of the session
   */
  constructor(connection, number) {
    this.connection = connection;
    this.number = number;
    this.cookie = cookieOf(number);
  }

  /**
   * @param {string} path
   * @param {() => void} answered
   */
  request(path, answered) {
    this.connection.request(path, this.cookie, (views) => {
      const expected = this.#views === undefined ? views : this.#views + (path === 'write' ? 1 : 0);
      if (views !== expected) {
        this.connection.fail(new Error(`user ${this.number}: ${views} views, not ${expected}`));
        return;
      }
      this.#views = views;
      answered();
    });
  }
}

const latencies = new Latencies();

const commands = {
  /**
   * A closed loop: each user requests the next page as soon as the last one has arrived.
   *
   * @param {{ port: number, path: string, users: number, seconds: number }} argument
   */
  closed({ port, path, users, seconds }) {
    return withUsers(port, users, (all, finish) => {
      const started = sharedClockMs();
      const end = started + seconds * 1000;
      let requests = 0;
      let active = all.length;
      const next = (user) => {
        const sent = sharedClockMs();
        if (sent >= end) {
          active -= 1;
          if (active === 0) finish({ requests, rate: perSecond(requests, started) });
          return;
        }
        user.request(path, () => {
          requests += 1;
          latencies.add(sharedClockMs() - sent);
          next(user);
        });
      };
      for (const user of all) next(user);
    });
  },

  /**
   * An open loop: requests are due at random moments with a fixed mean rate, and do not wait for earlier responses. A
   * request uses a user without a request in flight, or waits for one. Its latency counts from the moment when it was due.
   *
   * @param {{ port: number, path: string, users: number, rate: number, seconds: number }} argument
   */
  open({ port, path, users, rate, seconds }) {
    return withUsers(port, users, (all, finish, fail) => {
      const started = sharedClockMs() + PACER_STARTS_WITHIN_MS;
      const free = [...all];
      const due = dueTimes(rate, seconds);
      let arrived = 0;
      let sent = 0;
      let answered = 0;
      const send = () => {
        while (sent < arrived && free.length > 0) {
          const dueAt = started + due[sent];
          const user = free.shift();
          sent += 1;
          user.request(path, () => {
            latencies.add(sharedClockMs() - dueAt);
            answered += 1;
            free.push(user);
            if (answered === due.length) {
              finish({ requests: answered, rate: perSecond(answered, started) });
            } else send();
          });
        }
      };
      // Timers of this thread would be late by up to two milliseconds.
      const pacer = new Worker(PACER, {
        workerData: { due, started },
      });
      pacer.on('error', fail);
      pacer.on('message', (count) => {
        arrived = count;
        send();
      });
    });
  },

  /**
   * Sends one request of each user, to measure its cost for the database.
   *
   * @param {{ port: number, path: string, users: number }} argument
   */
  async visit({ port, path, users }) {
    return withConnections(port, VISIT_CONNECTIONS, (connections, finish) => {
      const started = sharedClockMs();
      let requests = 0;
      let number = 0;
      const next = (connection) => {
        if (number === users) {
          if (requests === users) finish({ requests, rate: perSecond(requests, started) });
          return;
        }
        number += 1;
        new User(connection, number).request(path, () => {
          requests += 1;
          next(connection);
        });
      };
      for (const connection of connections) next(connection);
    });
  },
};

/**
 * @param {number} port
 * @param {number} count
 * @param {(connections: Connection[], finish: (answer: object) => void, fail: (error: Error) => void) => void} run
 * @returns {Promise<object>} what `finish` was called with, and the latencies
 */
async function withConnections(port, count, run) {
  const connections = [];
  try {
    const answer = await new Promise((resolve, reject) => {
      for (let i = 0; i < count; i += 1) connections.push(new Connection(port, reject));
      Promise.all(connections.map(({ socket }) => once(socket, 'connect'))).then(() => {
        latencies.reset();
        run(connections, resolve, reject);
      }, reject);
    });
    return { ...answer, ...latencies.summary() };
  } finally {
    for (const { socket } of connections) socket.destroy();
  }
}

/**
 * @param {number} port
 * @param {number} count
 * @param {(users: User[], finish: (answer: object) => void, fail: (error: Error) => void) => void} run
 */
function withUsers(port, count, run) {
  return withConnections(port, count, (connections, finish, fail) => {
    run(
      connections.map((connection, i) => new User(connection, i + 1)),
      finish,
      fail,
    );
  });
}

/**
 * Independent arrivals (a Poisson process), the same in each run.
 *
 * @param {number} rate per second
 * @param {number} seconds
 * @returns {Float64Array} milliseconds since the start
 */
function dueTimes(rate, seconds) {
  const due = new Float64Array(Math.max(1, Math.round(rate * seconds)));
  let state = 0x2545f491;
  let at = 0;
  for (let i = 0; i < due.length; i += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    at -= (Math.log(((state >>> 0) + 1) / 2 ** 32) * 1000) / rate;
    due[i] = at;
  }
  return due;
}

/**
 * @param {number} requests
 * @param {number} started
 */
function perSecond(requests, started) {
  return (requests / (sharedClockMs() - started)) * 1000;
}

process.on('message', async ({ id, command, argument }) => {
  try {
    process.send({ id, value: await commands[command](argument) });
  } catch (error) {
    process.send({ id, error: error.message, stack: error.stack });
  }
});
process.on('disconnect', () => process.exit(0));
