/**
 * The page that lists all sessions, or the sessions of one user.
 *
 * @module
 */
import { isId } from '../session/id.js';
import { clipped, type Html, html } from './html.js';
import { notice, numberText, type Page, page, time } from './layout.js';
import type { SessionPage, ShownSession } from './sessions.js';
import type { Totals } from './totals.js';

export interface ListView extends SessionPage {
  /** Lists only the sessions of this user; `undefined` for all. */
  readonly user: string | undefined;
  /** Whether this is the first page, with the newest sessions. */
  readonly isFirst: boolean;
  /** The cursor of the next page. */
  readonly cursor: string | undefined;
  /** The id of the admin's own session. */
  readonly currentId: string | undefined;
  readonly hasUsers: boolean;
  readonly totals: Totals | undefined;
  readonly notice: string | undefined;
}

/** Up to this number of sessions, the listing needs no index. */
const INDEX_FROM = 100_000;

export function listPage(view: ListView): Page {
  const { user, totals } = view;
  const title = user === undefined ? 'Sessions' : `Sessions of ${clipped(user, 60)}`;
  return page(
    { root: './', title, current: 'sessions', isLive: true },
    html`<div class="head">
  <h1>${user === undefined ? 'Sessions' : html`Sessions of <bdi>${clipped(user, 200)}</bdi>`}</h1>
  ${user !== undefined && html`<p><a href="./">Show all sessions</a></p>`}
</div>
${view.notice && notice(view.notice)}
${user === undefined && totals && tiles(totals)}
${search(view)}
${user !== undefined && userActions(user)}
<section class="card" aria-labelledby="list-title">
  <h2 id="list-title" tabindex="-1">Live sessions, newest log-in first</h2>
  <div id="list" data-refresh>${list(view)}</div>
</section>
${totals && !totals.hasIndex && totals.live > INDEX_FROM && indexHint}`,
  );
}

function tiles(totals: Totals): Html {
  const tile = (name: string, value: number) =>
    html`<div><dt>${name}</dt><dd>${numberText(value, totals.isEstimate)}</dd></div>`;
  return html`<dl class="tiles">${tile('Live', totals.live)}${tile('Expired', totals.expired)}${tile('Ended', totals.revoked)}</dl>`;
}

function search({ user, hasUsers }: ListView): Html {
  const label = hasUsers ? 'Find a user or a session id' : 'Find a session id';
  return html`<form class="search" method="get" action="./" role="search">
  <label for="q">${label}</label>
  <div class="row">
    <input id="q" name="q" type="search" value="${user}" required maxlength="1000" autocomplete="off" autocapitalize="none" spellcheck="false">
    <button>Find</button>
  </div>
</form>`;
}

function userActions(user: string): Html {
  const action = (name: string) => `./users/${name}?user=${encodeURIComponent(user)}`;
  return html`<section class="card" aria-labelledby="user-title">
  <h2 id="user-title">This user</h2>
  <div class="actions">
    <form method="post" action="${action('export')}"><button class="plain">Export as JSON</button></form>
    <details class="confirm">
      <summary class="button danger">End all sessions …</summary>
      <form method="post" action="${action('revoke')}">
        <p>This logs the user out everywhere, at once.</p>
        <button class="danger solid">End all sessions</button>
      </form>
    </details>
    <details class="confirm">
      <summary class="button danger">Erase …</summary>
      <form method="post" action="${action('erase')}">
        <p>This logs the user out everywhere and deletes all that sessions hold of the user, expired sessions included. It cannot be undone.</p>
        <button class="danger solid">Erase everything</button>
      </form>
    </details>
  </div>
</section>`;
}

function list(view: ListView): Html {
  const { sessions, isFirst, cursor, user } = view;
  if (sessions.length === 0) {
    return html`<p class="empty">${isFirst ? 'There are no live sessions.' : 'There are no older sessions.'}</p>${pager(view)}`;
  }
  return html`<ul class="sessions">${sessions.map((each) => item(each, view))}</ul>
${(!isFirst || cursor !== undefined || user !== undefined) && pager(view)}`;
}

function item(session: ShownSession, { currentId, hasUsers, user }: ListView): Html {
  const { id, userId } = session;
  const isOwn = id === currentId;
  const name = userId ?? (hasUsers ? 'Anonymous' : `${id.slice(0, 10)}…`);
  const place = session.described[0]?.[1];
  const back = user === undefined ? '' : `?user=${encodeURIComponent(user)}`;
  const spoken = `the session of ${clipped(name, 60)}${place === undefined ? '' : `, ${clipped(place, 60)}`}`;
  return html`
<li class="session" data-id="${id}">
  <div class="who">
    <p class="name">${
      userId === null || user !== undefined
        ? html`<bdi>${clipped(name, 80)}</bdi>`
        : html`<a href="./?user=${encodeURIComponent(userId)}"><bdi>${clipped(name, 80)}</bdi></a>`
    }${isOwn && html` <span class="badge">Your session</span>`}</p>
    ${described(session)}
  </div>
  <p class="times"><span>Logged in ${time(session.createdAt)}</span> <span>Last seen ${time(session.lastSeenAt)}</span> <span>Expires ${time(session.expiresAt)}</span></p>
  ${
    // Stores neither write nor read rows with another kind of id.
    isId(id) &&
    html`<div class="buttons">
    <a class="button plain" href="./s/${id}" data-key="show ${id}" aria-label="Details of ${spoken}">Details</a>
    <form method="post" action="./s/${id}/revoke${back}"><button class="danger" data-key="end ${id}" aria-label="End ${spoken}">End</button></form>
  </div>`
  }
</li>`;
}

function described({ described: items, isReadable }: ShownSession): Html | false {
  if (!isReadable) return unreadable;
  if (items.length === 0) return false;
  return html`<dl class="described">${items.map(
    ([label, text]) => html`<div><dt><bdi>${label}</bdi></dt><dd><bdi>${text}</bdi></dd></div>`,
  )}</dl>`;
}

export const unreadable = html`<p class="described">The content of this session cannot be read.</p>`;

function pager({ isFirst, cursor, user }: ListView): Html | false {
  const filter = user === undefined ? '' : `user=${encodeURIComponent(user)}`;
  if (isFirst && cursor === undefined) return false;
  return html`<nav class="pager" aria-label="More sessions">
  ${!isFirst && html`<a class="button plain" href="./?${filter}" data-key="newest">Newest</a>`}
  ${cursor !== undefined && html`<a class="button plain" href="./?${filter && `${filter}&`}before=${encodeURIComponent(cursor)}" data-key="older">Older</a>`}
</nav>`;
}

const indexHint = html`<aside class="card hint" aria-labelledby="index-title">
  <h2 id="index-title">This page is slow</h2>
  <p>The table has no index on <code>(created_at, id)</code>, so each page of the list sorts all sessions. <a href="https://github.com/connect-drizzle/connect-drizzle/blob/main/docs/admin.md#the-index">Add the index</a></p>
</aside>`;
