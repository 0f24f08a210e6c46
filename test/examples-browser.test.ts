import { fileURLToPath } from 'node:url';
import type {
  Browser,
  BrowserContext,
  BrowserContextOptions,
  Locator,
  Page,
  PageScreenshotOptions,
} from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { axeViolations } from './support/axe.js';
import { findChromium, launchChromium } from './support/chromium.js';
import { type Example, startExample } from './support/example.js';

const chromium = findChromium();
if (!chromium) {
  console.log('No browser test: no Chromium is installed, and CHROMIUM does not name one.');
}

/** With `SCREENSHOTS=1`, the run takes the pictures of the README again. */
const pictures = process.env.SCREENSHOTS
  ? fileURLToPath(new URL('../docs/images/', import.meta.url))
  : undefined;

const laptop = { viewport: { width: 1000, height: 850 }, deviceScaleFactor: 2 };
const phone = {
  viewport: { width: 390, height: 844 },
  deviceScaleFactor: 2,
  isMobile: true,
  hasTouch: true,
  userAgent:
    'Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 ' +
    '(KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1',
};
const windows = {
  ...laptop,
  userAgent: 'Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0',
};

describe.runIf(chromium)('the express example in a browser', () => {
  let example: Example;
  let browser: Browser;
  const contexts: BrowserContext[] = [];
  const complaints: string[] = [];

  beforeAll(async () => {
    example = await startExample('examples/express/server.ts');
    browser = await launchChromium(chromium ?? '');
  });

  afterEach(async () => {
    for (const context of contexts.splice(0)) await context.close();
    // Errors in scripts, and what the content security policy blocked.
    expect(complaints.splice(0)).toEqual([]);
  });

  afterAll(async () => {
    await browser?.close();
    await example?.stop();
  });

  /** Opens the page in a new browser context, without cookies. */
  async function open(options: BrowserContextOptions = laptop): Promise<Page> {
    const context = await browser.newContext({ baseURL: example.url, ...options });
    context.setDefaultTimeout(20_000);
    contexts.push(context);
    context.on('weberror', (error) => complaints.push(String(error.error())));
    context.on('console', (message) => {
      const text = message.text();
      if (message.type() === 'error' && !text.startsWith('Failed to load resource')) {
        complaints.push(text);
      }
    });
    const page = await context.newPage();
    await page.goto('/');
    return page;
  }

  let people = 0;
  /** Signs a new person up in an open page. Returns their name and password. */
  async function signUp(page: Page) {
    people += 1;
    const account = { name: `Person-${people}`, password: `password-${people}` };
    await page.getByRole('link', { name: 'Sign up' }).click();
    await page.getByLabel('Name').fill(account.name);
    await page.getByLabel('Password').fill(account.password);
    await page.getByRole('button', { name: 'Sign up' }).click();
    await isLive(page);
    return account;
  }

  async function logIn(page: Page, account: { name: string; password: string }) {
    await page.getByLabel('Name').fill(account.name);
    await page.getByLabel('Password').fill(account.password);
    await page.getByRole('button', { name: 'Log in', exact: true }).click();
    await page.getByRole('heading', { name: `Hello, ${account.name}` }).waitFor();
  }

  const isLive = (page: Page) => page.getByText('Live', { exact: true }).waitFor();
  const ended = (page: Page) => page.getByRole('heading', { name: 'You have been logged out' });
  const devices = (page: Page) => page.locator('#devices').getByRole('listitem');

  const hasFocus = async (element: Locator) =>
    (await element.and(element.page().locator(':focus')).count()) === 1;

  /** Sets a mark that a reload would remove. */
  const mark = (page: Page) => page.evaluate('globalThis.marked = true');
  const isMarked = (page: Page) => page.evaluate('globalThis.marked === true');

  async function picture(page: Page, name: string, options: PageScreenshotOptions = {}) {
    if (!pictures) return;
    await page.screenshot({
      path: `${pictures}${name}.png`,
      animations: 'disabled',
      ...options,
    });
  }

  /** Takes pictures of the page of the races; on a phone, of the first race only. */
  async function takeRaces(page: Page) {
    await page.evaluate('document.activeElement.blur()');
    for (const [name, viewport, colorScheme, last] of [
      ['races', laptop.viewport, 'light', '#revived-log-out'],
      ['races-dark', laptop.viewport, 'dark', '#revived-log-out'],
      ['races-phone', phone.viewport, 'light', '#lost-update'],
    ] as const) {
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme });
      await page.evaluate('scrollTo(0, 0)');
      const box = await page.locator(last).boundingBox();
      const height = Math.ceil((box?.y ?? 0) + (box?.height ?? 0)) + 10;
      const clip = { x: 0, y: 0, width: viewport.width, height };
      await picture(page, name, { fullPage: true, clip });
    }
  }

  test('shows at once, without a reload, that another device has logged this one out', async () => {
    const one = await open();
    const other = await open(phone);
    const account = { name: 'Ada', password: 'difference-engine' };
    await logIn(one, account);
    await isLive(one);
    await mark(one);
    await logIn(other, account);
    await isLive(other);
    await mark(other);

    // The new device appears on the open page and is announced.
    await one.getByText('Safari on iPhone', { exact: true }).waitFor();
    expect(await one.locator('#news').textContent()).toBe('Safari on iPhone has logged in.');
    expect(await isMarked(one)).toBe(true);
    if (pictures) {
      const third = await open(windows);
      await logIn(third, account);
      await one.getByText('Firefox on Windows', { exact: true }).waitFor();
      await other.getByText('Firefox on Windows', { exact: true }).waitFor();
      await picture(one, 'devices');
      await picture(other, 'devices-phone');
      await third.getByRole('button', { name: 'Log out here' }).click();
      await one.getByText('Firefox on Windows', { exact: true }).waitFor({ state: 'detached' });
    }

    await one.getByRole('button', { name: 'Log out Safari on iPhone' }).click();
    await ended(other).waitFor();
    await picture(other, 'logged-out-phone');
    expect(await isMarked(other)).toBe(true);
    expect(await other.title()).toMatch(/^Logged out/);
    // The page shows nothing of the account any more, and the heading has the focus.
    expect(await other.locator('body').textContent()).not.toContain('127.0.0.1');
    expect(await hasFocus(ended(other))).toBe(true);

    await one.getByText('Safari on iPhone is logged out.').waitFor();
    expect(await devices(one).count()).toBe(1);
    await other.getByRole('link', { name: 'Go to log-in' }).click();
    await other.getByRole('heading', { name: 'Log in', exact: true }).waitFor();
  });

  test('shows at once that another tab has logged out', async () => {
    const tab = await open();
    await signUp(tab);
    const other = await tab.context().newPage();
    await other.goto('/');
    await isLive(other);
    await mark(other);
    await tab.getByRole('button', { name: 'Log out here' }).click();
    await ended(other).waitFor();
    expect(await isMarked(other)).toBe(true);
    // The tab that logged out goes to the log-in page.
    await tab.getByRole('heading', { name: 'Log in', exact: true }).waitFor();
  });

  test('logs out all other devices with one button', async () => {
    const one = await open();
    const account = await signUp(one);
    const others = [await open(phone), await open(windows)];
    for (const other of others) {
      await logIn(other, account);
      await isLive(other);
    }
    await one.getByRole('button', { name: 'Log out all 2 other devices' }).click();
    for (const other of others) await ended(other).waitFor();
    await one.getByText('2 other devices are logged out.').waitFor();
  });

  test('keeps the focus when the list changes, and can be used with the keyboard alone', async () => {
    const one = await open();
    const account = await signUp(one);
    const other = await open(phone);
    await other.getByLabel('Name').focus();
    await other.keyboard.type(account.name);
    await other.keyboard.press('Tab');
    await other.keyboard.type(account.password);
    await other.keyboard.press('Enter');
    await other.getByRole('heading', { name: `Hello, ${account.name}` }).waitFor();

    const button = one.getByRole('button', { name: 'Log out Safari on iPhone' });
    await button.focus();
    const third = await open(windows);
    await logIn(third, account);
    await one.getByText('Firefox on Windows', { exact: true }).waitFor();
    expect(await hasFocus(button)).toBe(true);
    await isLive(other);
    await one.keyboard.press('Enter');
    await ended(other).waitFor();
  });

  test('works without JavaScript', async () => {
    const one = await open({ ...laptop, javaScriptEnabled: false });
    await one.getByRole('button', { name: 'Log in as Grace' }).click();
    await one.getByRole('heading', { name: 'Hello, Grace' }).waitFor();
    expect(await one.getByText('Live', { exact: true }).isVisible()).toBe(false);
    await one.getByRole('link', { name: 'Two requests at once' }).click();
    await one.getByRole('button', { name: 'Run the lost update' }).click();
    await one.getByText('The tea is lost').waitFor();
    expect(await one.getByText('Both changes are there').isVisible()).toBe(true);
    await one.getByRole('button', { name: 'Log out here' }).click();
    await one.getByRole('heading', { name: 'Log in', exact: true }).waitFor();
  });

  test('runs the races without leaving the page, announces the outcomes and keeps the focus', async () => {
    const page = await open();
    await page.getByRole('link', { name: 'Two requests at once' }).first().click();
    // Wait until the page and its script have loaded. Without the script, the browser would leave the page.
    await page.waitForURL('**/races');
    await mark(page);
    for (const [name, outcomes] of [
      [
        'Run the lost update',
        'connect-drizzle: Both changes are there. A plain store: The tea is lost.',
      ],
      [
        'Run the revived log-out',
        'connect-drizzle: Ada is logged out. A plain store: Ada is logged in again.',
      ],
    ] as const) {
      const button = page.getByRole('button', { name });
      await button.focus();
      await page.keyboard.press('Enter');
      await page.locator('#news').getByText(outcomes, { exact: true }).waitFor();
      expect(await hasFocus(button)).toBe(true);
      expect(await isMarked(page)).toBe(true);
    }
    expect(await page.locator('.outcome').count()).toBe(4);
    if (pictures) await takeRaces(page);

    // The outcomes are still there after a reload.
    await page.reload();
    expect(await page.locator('.outcome').count()).toBe(4);
  });

  test('sends the form like a browser without script if a race cannot be run in place', async () => {
    const page = await open();
    await page.goto('/races');
    await page.route('**/races/lost-update', (route, request) =>
      request.isNavigationRequest() ? route.continue() : route.fulfill({ status: 500 }),
    );
    // The script's request fails, so the browser sends the form itself.
    await page.getByRole('button', { name: 'Run the lost update' }).click();
    await page.waitForURL('**/races#lost-update');
    await page.locator('.verdict').getByText('The tea is lost').waitFor();
  });

  test.each(['light', 'dark'] as const)('is accessible in %s colours', async (colorScheme) => {
    const page = await open({
      ...phone,
      viewport: { width: 320, height: 640 },
      colorScheme,
      // During its animation, the contrast of a result is too low.
      reducedMotion: 'reduce',
    });
    const check = async () => {
      expect(await axeViolations(page)).toEqual([]);
      expect(await page.evaluate(lowContrast)).toEqual([]);
      expect(await page.evaluate(unlabelled)).toEqual([]);
      expect(await page.evaluate(smallTargets)).toEqual([]);
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(320);
    };
    await check();
    await page.goto('/races');
    for (const name of ['Run the lost update', 'Run the revived log-out']) {
      await page.getByRole('button', { name }).click();
    }
    const outcomes = page.locator('.verdict');
    await outcomes.getByText('The tea is lost').waitFor();
    await outcomes.getByText('Ada is logged in again').waitFor();
    await check();
    await page.goto('/');
    await page.getByRole('link', { name: 'Sign up' }).click();
    await page.getByLabel('Name').fill('Ada');
    await page.getByLabel('Password').fill('some-password');
    await page.getByRole('button', { name: 'Sign up' }).click();
    // The message is at its field, which has the focus.
    const name = page.getByLabel('Name');
    expect(await name.getAttribute('aria-invalid')).toBe('true');
    expect(await name.getAttribute('aria-describedby')).toContain('name-problem');
    expect(await hasFocus(name)).toBe(true);
    await check();
    await page.getByRole('link', { name: 'Log in' }).click();

    const account = await signUp(page);
    const other = await open(windows);
    await logIn(other, account);
    await page.getByText('Firefox on Windows', { exact: true }).waitFor();
    await check();
    await other.getByRole('button', { name: 'Log out Safari on iPhone' }).click();
    await ended(page).waitFor();
    await check();
  });
});

// The scripts below run in the page.

/** Texts whose contrast with their background is below 4.5, the limit of WCAG AA. */
const lowContrast = `(() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, alpha = 1] = parse(getComputedStyle(at).backgroundColor);
      if (alpha === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility()) continue;
    const front = luminance(parse(getComputedStyle(element).color).slice(0, 3));
    const back = luminance(behind(element));
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (ratio < 4.5) found.push(text + ' ' + ratio.toFixed(2));
  }
  return found;
})()`;

/** Fields and buttons without a name, and images without `alt` that are not hidden. */
const unlabelled = `(() => {
  const fields = [...document.querySelectorAll('input:not([type=hidden])')];
  const buttons = [...document.querySelectorAll('button, a')];
  const images = [...document.querySelectorAll('svg, img')];
  return [
    ...fields.filter((field) => field.labels.length === 0),
    ...buttons.filter((button) => !(button.getAttribute('aria-label') ?? button.textContent).trim()),
    ...images.filter((image) => !image.ariaHidden && !image.getAttribute('alt')),
  ].map((element) => element.outerHTML);
})()`;

/** Buttons and fields that are too small for a thumb: below 44 pixels. */
const smallTargets = `[...document.querySelectorAll('button, .button, input:not([type=hidden])')]
  .filter((element) => element.getBoundingClientRect().height < 44)
  .map((element) => element.outerHTML)`;
