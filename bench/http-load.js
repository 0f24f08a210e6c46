/**
 * The HTTP load generator: autocannon in a process of its own.
 *
 * @module
 */
import autocannon from 'autocannon';

const commands = {
  /**
   * Logs in so many people.
   *
   * @param {{ port: number, sessions: number }} argument
   * @returns {Promise<string[]>} their cookies
   */
  async login({ port, sessions }) {
    const cookies = [];
    for (let i = 0; i < sessions; i += 1) {
      const response = await fetch(`http://127.0.0.1:${port}/login`);
      await response.arrayBuffer();
      const [cookie] = response.headers.getSetCookie();
      if (!response.ok || !cookie) throw new Error(`log-in: ${response.status}`);
      cookies.push(cookie.split(';')[0]);
    }
    return cookies;
  },

  /**
   * @param {{ port: number, path: string, cookies: string[], connections: number, seconds: number }} argument
   */
  async attack({ port, path, cookies, connections, seconds }) {
    let client = 0;
    const result = await autocannon({
      url: `http://127.0.0.1:${port}/${path}`,
      connections,
      duration: seconds,
      // Each connection has people of its own, one after the other.
      setupClient(one) {
        const own = cookies.filter((_, i) => i % connections === client);
        client += 1;
        one.setRequests(own.map((cookie) => ({ path: `/${path}`, headers: { cookie } })));
      },
    });
    if (result.errors > 0 || result.non2xx > 0) {
      throw new Error(`${result.errors} errors and ${result.non2xx} other answers than 2xx`);
    }
    return {
      requests: result.requests.total,
      rate: result.requests.total / result.duration,
      p50: result.latency.p50,
      p99: result.latency.p99,
    };
  },
};

process.on('message', async ({ id, command, argument }) => {
  try {
    process.send({ id, value: await commands[command](argument) });
  } catch (error) {
    process.send({ id, error: error.message, stack: error.stack });
  }
});
process.on('disconnect', () => process.exit(0));
