import type { DrizzleStore } from 'connect-drizzle';

/** One place where somebody is logged in: a session, as its owner may see it. */
export interface Device {
  /** The id that the store gives a session: a hash, of no use as a cookie. */
  id: string;
  browser: string;
  phone: boolean;
  address: string;
  createdAt: Date;
  lastSeenAt: Date;
}

/** Where this person is logged in, the most recently seen first. */
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

/** `Firefox on Linux`, as well as a User-Agent can be trusted to tell. */
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
