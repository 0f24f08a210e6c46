import { demoAccounts, passwordLength } from './accounts.js';
import type { Device } from './devices.js';
import { type Html, html } from './html.js';

/** The data for the header and footer of every page. */
export interface Frame {
  /** Where sessions are stored, without a password. */
  storage: string;
  /** The path of the page. */
  path: string;
  /** Who is logged in. */
  viewer: { name: string; isAdmin: boolean } | undefined;
}

const docs = 'https://github.com/connect-drizzle/connect-drizzle#readme';

export interface AccountView {
  name: string;
  visits: number;
  notice: string | undefined;
  devices: Device[];
  /** The id of the session of this request. */
  current: string;
}

export interface FormView {
  visits: number;
  notice?: string | undefined;
  name?: string;
  /** The problem of the submitted form, and its field. */
  problem?: { field: 'name' | 'password'; text: string } | undefined;
}

export function accountPage(frame: Frame, view: AccountView): Html {
  return page(
    frame,
    `Your devices`,
    html`
<main id="main">
  ${view.notice && notice(view.notice)}
  <section aria-labelledby="hello" class="hello">
    <h1 id="hello">Hello, ${view.name}</h1>
    <p class="visits">${visits(view.visits)}</p>
  </section>
  <section aria-labelledby="devices-title" class="card">
    <div class="card-head">
      <h2 id="devices-title">Your devices</h2>
      <p class="live" id="live" data-state="off" hidden><span class="dot" aria-hidden="true"></span><span id="live-text">Live</span></p>
    </div>
    <p class="lead">Everywhere you are logged in. Log out a device that you do not recognise: it is out at once, and the page it has open says so.</p>
    <div id="devices">${deviceList(view.devices, view.current)}</div>
  </section>
  <aside class="card hint" aria-labelledby="try">
    <h2 id="try">Try it</h2>
    <p>Open this page in a second browser or a private window, log in as <strong>${view.name}</strong> there too, and put the two windows side by side. Log one out from the other, and watch it happen.</p>
  </aside>
  <p id="news" class="visually-hidden" role="status" aria-live="polite"></p>
</main>
<template id="ended">
  <section class="card ended">
    ${doorIcon}
    <h1 tabindex="-1">You have been logged out</h1>
    <p>This session was ended just now, from another tab or another device.</p>
    <p><a class="button" href="/">Go to log-in</a></p>
  </section>
</template>
<script type="module" src="/live.js"></script>`,
  );
}

/** The list of devices, and a button that logs out all others if there are several. */
export function deviceList(devices: Device[], current: string): Html {
  const mine = devices.filter(({ id }) => id === current);
  const others = devices.filter(({ id }) => id !== current);
  return html`
<ul class="devices">
  ${mine.map((device) => deviceItem(device, true))}
  ${others.map((device) => deviceItem(device, false))}
</ul>
${
  // One other device has its own button.
  others.length > 1 &&
  html`
<form method="post" action="/devices/others/logout" class="others">
  <button class="danger" data-key="others">Log out all ${others.length} other devices</button>
</form>`
}`;
}

function deviceItem(device: Device, isCurrent: boolean): Html {
  return html`
<li class="device" data-id="${device.id}" data-name="${device.browser}">
  ${device.phone ? phoneIcon : screenIcon}
  <div class="device-text">
    <p class="device-name">${device.browser}${isCurrent && html` <span class="badge">This device</span>`}</p>
    <p class="device-meta"><span>${device.address}</span> <span>logged in ${time(device.createdAt)}</span> <span>last seen ${time(device.lastSeenAt)}</span></p>
  </div>
  ${
    !isCurrent &&
    html`
  <form method="post" action="/devices/logout">
    <input type="hidden" name="id" value="${device.id}">
    <button class="plain" data-key="${device.id}" aria-label="Log out ${device.browser}, ${device.address}">Log out</button>
  </form>`
  }
</li>`;
}

export function logInPage(frame: Frame, view: FormView): Html {
  return page(
    frame,
    'Log in',
    html`
<main id="main">
  <section class="hello" aria-labelledby="title">
    <h1 id="title">Try connect-drizzle</h1>
    <p class="lead">A session store for express-session on PostgreSQL. This app uses it to show three things:</p>
  </section>
  ${view.notice && notice(view.notice)}
  <ol class="tour">
    <li>
      <h2><a href="/races">Two requests at once</a></h2>
      <p>Run two races in which a plain store loses data: a lost update and a revived log-out. You do not have to log in.</p>
    </li>
    <li>
      <h2>Your devices</h2>
      <p>Log in with two browsers. Log one out from the other: its open page shows this at once.</p>
    </li>
    <li>
      <h2>All sessions</h2>
      <p>Log in as <strong>admin</strong> to see and end all sessions.</p>
    </li>
  </ol>
  <div class="columns">
    <section class="card" aria-labelledby="log-in">
      <h2 id="log-in">Log in</h2>
      ${credentials('/login', 'Log in', 'current-password', view)}
      <p class="aside">No account? <a href="/signup">Sign up</a></p>
    </section>
    <section class="card hint" aria-labelledby="demo">
      <h2 id="demo">Just looking?</h2>
      <p>These accounts exist already. Their passwords are not secret.</p>
      <ul class="demo">
        ${demoAccounts.map(
          ({ name, password }) => html`
        <li>
          <p><strong>${name}</strong><br><code>${password}</code></p>
          <form method="post" action="/login">
            <input type="hidden" name="name" value="${name}">
            <input type="hidden" name="password" value="${password}">
            <button class="plain">Log in as ${name}</button>
          </form>
        </li>`,
        )}
      </ul>
    </section>
  </div>
  <p class="visits">${visits(view.visits)}</p>
</main>`,
  );
}

export function signUpPage(frame: Frame, view: FormView): Html {
  return page(
    frame,
    'Sign up',
    html`
<main id="main" class="door">
  <section class="hello" aria-labelledby="title">
    <h1 id="title">Sign up</h1>
    <p class="visits">The account is only for this example.</p>
  </section>
  <div class="card">
    ${credentials('/signup', 'Sign up', 'new-password', view)}
    <p class="aside">Have an account? <a href="/">Log in</a></p>
  </div>
</main>`,
  );
}

export function errorPage(frame: Frame, title: string, text: string): Html {
  return page(
    frame,
    title,
    html`
<main id="main" class="door">
  <section class="card ended">
    <h1>${title}</h1>
    <p>${text}</p>
    <p><a class="button" href="/">Go to the start page</a></p>
  </section>
</main>`,
  );
}

function credentials(action: string, verb: string, autocomplete: string, view: FormView): Html {
  const { problem } = view;
  const isNew = autocomplete === 'new-password';
  const describedBy = (field: 'name' | 'password', hint: boolean) => {
    const ids = [hint && `${field}-hint`, problem?.field === field && `${field}-problem`];
    const present = ids.filter(Boolean).join(' ');
    return present && html` aria-describedby="${present}"`;
  };
  const invalid = (field: 'name' | 'password') =>
    problem?.field === field && html` aria-invalid="true" autofocus`;
  const problemText = (field: 'name' | 'password') =>
    problem?.field === field &&
    html`<p class="problem" id="${field}-problem" role="alert">${problem.text}</p>`;
  return html`
<form method="post" action="${action}" class="stack">
  <div class="field">
    <label for="name">Name</label>
    <input id="name" name="name" value="${view.name}" required minlength="2" maxlength="30" autocomplete="username" autocapitalize="none" spellcheck="false"${invalid('name')}${describedBy('name', isNew)}>
    ${isNew && html`<p class="field-hint" id="name-hint">2 to 30 letters, digits, dots, dashes or underscores.</p>`}
    ${problemText('name')}
  </div>
  <div class="field">
    <label for="password">Password</label>
    <input id="password" name="password" type="password" required${isNew && html` minlength="${passwordLength.min}"`} maxlength="${passwordLength.max}" autocomplete="${autocomplete}"${invalid('password')}${describedBy('password', isNew)}>
    ${isNew && html`<p class="field-hint" id="password-hint">At least ${passwordLength.min} characters.</p>`}
    ${problemText('password')}
  </div>
  <button>${verb}</button>
</form>`;
}

export function page(frame: Frame, title: string, body: Html): Html {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title} · connect-drizzle example</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/style.css">
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="top">
  <p class="brand">${mark}<span>connect-drizzle</span></p>
  ${
    frame.viewer &&
    html`
  <form method="post" action="/logout" class="who">
    <span>Logged in as <strong>${frame.viewer.name}</strong></span>
    <button class="plain">Log out here</button>
  </form>`
  }
  <nav aria-label="Pages">
    <ul>
      ${link(frame, '/', frame.viewer ? 'Your devices' : 'Start')}
      ${link(frame, '/races', 'Two requests at once')}
      ${frame.viewer?.isAdmin && link(frame, '/admin/sessions/', 'All sessions')}
      <li><a href="${docs}">Docs</a></li>
    </ul>
  </nav>
</header>
${body}
<footer><p>Sessions are stored in ${frame.storage}.</p></footer>
</body>
</html>
`;
}

function link(frame: Frame, path: string, text: string): Html {
  return html`<li><a href="${path}"${frame.path === path && html` aria-current="page"`}>${text}</a></li>`;
}

function visits(count: number): Html {
  return count === 1
    ? html`Your first visit in this session.`
    : html`Visit number <strong>${count}</strong> in this session.`;
}

function notice(text: string): Html {
  return html`<p class="notice" role="status">${text}</p>`;
}

export function time(date: Date): Html {
  const iso = date.toISOString();
  return html`<time datetime="${iso}">${iso.slice(0, 16).replace('T', ' ')} UTC</time>`;
}

const mark = html`<svg class="mark" viewBox="0 0 24 24" aria-hidden="true"><path d="M4 15.5 7 6m4 9.5L14 6m4 9.5L21 6M3 18.5h18"/></svg>`;
const screenIcon = html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><rect x="3" y="4.5" width="18" height="12" rx="2"/><path d="M8 20h8m-4-3.5V20"/></svg>`;
const phoneIcon = html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><rect x="7" y="2.5" width="10" height="19" rx="2.5"/><path d="M11 18.5h2"/></svg>`;
const doorIcon = html`<svg class="icon door-icon" viewBox="0 0 24 24" aria-hidden="true"><path d="M10 4H6a2 2 0 0 0-2 2v12a2 2 0 0 0 2 2h4m5-4 4-4-4-4m4 4H9"/></svg>`;
