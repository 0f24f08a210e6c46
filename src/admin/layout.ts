/**
 * The common parts of all pages.
 *
 * @module
 */
import { type Html, html } from './html.js';

/** The relative path from a page to the mount path. */
export type Root = './' | '../' | '../../';

export interface Frame {
  readonly root: Root;
  readonly title: string;
  /** The current entry of the navigation. */
  readonly current?: 'sessions' | 'statistics';
  /** Whether the page shows changes as they happen. */
  readonly isLive?: boolean;
}

export interface Page extends Frame {
  readonly main: Html;
}

export function page(frame: Frame, main: Html): Page {
  return { ...frame, main };
}

/** Returns the document of a page. `home` is the address of the app. */
export function documentOf(
  { root, title, current, isLive = false, main }: Page,
  home: string | undefined,
): Html {
  const link = (href: string, name: 'sessions' | 'statistics', text: string) =>
    html`<a href="${root}${href}"${current === name && html` aria-current="page"`}>${text}</a>`;
  return html`<!doctype html>
<html lang="en" data-root="${root}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title} · Session admin</title>
<link rel="icon" href="${root}assets/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="${root}assets/style.css">
<script type="module" src="${root}assets/script.js"></script>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="top">
  <p class="brand">${mark}<span>Session admin</span></p>
  <nav aria-label="Pages">${link('', 'sessions', 'Sessions')}${link('stats', 'statistics', 'Statistics')}${home !== undefined && html`<a href="${home}">Back to the app</a>`}</nav>
  ${isLive && html`<p class="live" id="live" data-state="off" hidden><span class="dot" aria-hidden="true"></span><span id="live-text">Live</span></p>`}
</header>
<main id="main" tabindex="-1">
${main}
</main>
<p id="news" class="visually-hidden" role="status"></p>
<template id="gone">
  <section class="card message">
    <h1 tabindex="-1">This page is closed</h1>
    <p>You have been logged out, or you may not see this page any more.</p>
    <p><a class="button" href="${root}">Reload</a></p>
  </section>
</template>
</body>
</html>
`;
}

export function errorPage(root: Root, title: string, text: string): Page {
  return page(
    { root, title },
    html`<section class="card message">
  <h1>${title}</h1>
  <p>${text}</p>
  <p><a class="button" href="${root}">Go to the sessions</a></p>
</section>`,
  );
}

/** A time in UTC. The script replaces it with a relative time. */
export function time(ms: number): Html {
  const iso = new Date(ms).toISOString();
  return html`<time datetime="${iso}">${iso.slice(0, 16).replace('T', ' ')} UTC</time>`;
}

/** The same, and also shows the time itself after the script has replaced it. */
export function exactTime(ms: number): Html {
  const iso = new Date(ms).toISOString();
  return html`${time(ms)} <span class="exact" hidden>${iso.slice(0, 19).replace('T', ' ')} UTC</span>`;
}

export function notice(text: string): Html {
  return html`<p class="notice" role="status">${text}</p>`;
}

export function numberText(value: number, isEstimate = false): string {
  if (!isEstimate) return value.toLocaleString('en-US');
  const digits = { maximumSignificantDigits: 3 } as const;
  return `≈ ${value.toLocaleString('en-US', digits)}`;
}

export function sizeText(bytes: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
  let size = bytes;
  let unit = 0;
  for (; size >= 1000 && unit < units.length - 1; unit += 1) size /= 1000;
  return `${size.toLocaleString('en-US', { maximumFractionDigits: unit === 0 ? 0 : 1 })} ${units[unit]}`;
}

const mark = html`<svg class="mark" viewBox="0 0 24 24" aria-hidden="true"><path d="M4 15.5 7 6m4 9.5L14 6m4 9.5L21 6M3 18.5h18"/></svg>`;
