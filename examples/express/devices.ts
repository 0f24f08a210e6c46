import type { DrizzleStore } from 'connect-drizzle';

/** A device with a log-in: the facts about a session that its owner may see. */
export interface Device {
  /** The id of the session: a hash, which does not work as a cookie. */
  id: string;
  browser: string;
  phone: boolean;
  address: string;
  createdAt: Date;
  lastSeenAt: Date;
}

/** Returns the devices of a user, the most recently seen first. */
export async function devicesOf(store: DrizzleStore, userId: number): Promise<Device[]> {
  const devices: Device[] = [];
  for await (const { id, data, createdAt, lastSeenAt } of store.sessions({ userId })) {
    const agent = data.device?.agent ?? '';
    devices.push({
      id,
      browser: browserName(agent),
      phone: /Mobi|Android|iPhone|iPad/.test(agent),
      address: data.device?.address ?? 'unknown',
      createdAt,
      lastSeenAt,
    });
  }
  return devices.sort((a, b) => b.lastSeenAt.getTime() - a.lastSeenAt.getTime());
}

/** Returns a name such as `Firefox on Linux`, as far as the User-Agent is correct. */
export function browserName(agent: string): string {
  const browser = firstMatch(agent, [
    [/\bEdgA?\//, 'Edge'],
    [/\bOPR\//, 'Opera'],
    [/\bSamsungBrowser\//, 'Samsung Internet'],
    [/\b(Firefox|FxiOS)\//, 'Firefox'],
    [/\b(Headless)?(Chrome|CriOS)\//, 'Chrome'],
    [/\bVersion\/.*Safari\//, 'Safari'],
    [/^curl\//, 'curl'],
  ]);
  const system = firstMatch(agent, [
    [/\biPhone\b/, 'iPhone'],
    [/\biPad\b/, 'iPad'],
    [/\bAndroid\b/, 'Android'],
    [/\bWindows\b/, 'Windows'],
    [/\bMac OS X\b/, 'macOS'],
    [/\bCrOS\b/, 'ChromeOS'],
    [/\bLinux\b/, 'Linux'],
  ]);
  if (browser && system) return `${browser} on ${system}`;
  return browser ?? (system ? `A browser on ${system}` : 'An unknown browser');
}

function firstMatch(agent: string, table: [RegExp, string][]): string | undefined {
  return table.find(([pattern]) => pattern.test(agent))?.[1];
}
