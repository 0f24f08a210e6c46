/**
 * The page of one session.
 *
 * @module
 */
import { type Html, html } from './html.js';
import { exactTime, notice, type Page, page, type Root, sizeText } from './layout.js';
import { unreadable } from './list-page.js';
import type { ShownSession } from './sessions.js';

export interface SessionPageView {
  readonly root: Root;
  readonly session: ShownSession;
  readonly isCurrent: boolean;
  readonly hasUsers: boolean;
  /** The content of the session, after an admin has revealed it; null if it cannot be read. */
  readonly content: string | null | undefined;
  readonly notice?: string | undefined;
}

const STATES = { live: 'Live', expired: 'Expired', revoked: 'Ended' } as const;

/** Maximum number of characters of a session's content on the page. An export contains all. */
const MAX_CONTENT = 200_000;

export function sessionPage(view: SessionPageView): Page {
  const { root, session, isCurrent, content } = view;
  const { id, userId, state } = session;
  const user = userId === null ? undefined : encodeURIComponent(userId);
  const href = `${root}s/${id}`;
  return page(
    { root, title: `Session ${id.slice(0, 10)}…`, isLive: content === undefined },
    html`<div class="head">
  <h1>Session</h1>
  <p><a href="${root}">Show all sessions</a></p>
</div>
${view.notice && notice(view.notice)}
<section class="card" aria-labelledby="facts-title">
  <h2 id="facts-title" tabindex="-1">Details</h2>
  <div id="facts" data-refresh>
    <dl class="facts">
      ${fact('State', html`<span class="badge ${state}">${STATES[state]}</span>${isCurrent && html` <span class="badge">Your session</span>`}`)}
      ${view.hasUsers && fact('User', user === undefined ? 'None (anonymous)' : html`<a href="${root}?user=${user}"><bdi>${userId}</bdi></a>`)}
      ${fact('Id', html`<code>${id}</code>`)}
      ${fact('Logged in', exactTime(session.createdAt))}
      ${fact('Last seen', exactTime(session.lastSeenAt))}
      ${session.revokedAt !== null && fact('Ended', exactTime(session.revokedAt))}
      ${fact(state === 'revoked' ? 'Kept until' : 'Expires', exactTime(session.expiresAt))}
      ${session.bytes !== null && fact('Size', sizeText(session.bytes))}
      ${session.described.map(([label, text]) => fact(html`<bdi>${label}</bdi>`, html`<bdi>${text}</bdi>`))}
    </dl>
    ${!session.isReadable && unreadable}
  </div>
</section>
${state === 'revoked' ? ended : actions(href, root, id, user)}
${content !== undefined && contentSection(content)}`,
  );
}

function fact(name: Html | string, value: Html | string): Html {
  return html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
}

const ended = html`<section class="card hint"><h2>This session has ended</h2><p>Its content is deleted. Its id is kept for an hour, so that a request in flight cannot bring it back.</p></section>`;

function actions(href: string, root: Root, id: string, user: string | undefined): Html {
  return html`<section class="card" aria-labelledby="actions-title">
  <h2 id="actions-title">Actions</h2>
  <div class="actions">
    <form method="post" action="${href}/reveal"><button class="plain">Reveal the content</button></form>
    <form method="post" action="${href}/revoke"><button class="danger">End this session</button></form>
    ${
      user !== undefined &&
      html`<details class="confirm">
      <summary class="button danger">End all others of this user …</summary>
      <form method="post" action="${root}users/revoke?user=${user}&amp;keep=${id}">
        <p>This logs the user out everywhere, except in this session.</p>
        <button class="danger solid">End all others</button>
      </form>
    </details>`
    }
  </div>
</section>`;
}

function contentSection(content: string | null): Html {
  const text = content === null ? undefined : prettyText(content);
  return html`<section class="card" aria-labelledby="content-title">
  <h2 id="content-title">Content</h2>
  ${
    text === undefined
      ? html`<p>The content of this session cannot be read.</p>`
      : html`<pre class="content" tabindex="0" role="region" aria-label="Stored text"><code><bdi>${text.slice(0, MAX_CONTENT)}</bdi></code></pre>
  ${text.length > MAX_CONTENT && html`<p class="lead">The first ${MAX_CONTENT.toLocaleString('en-US')} of ${text.length.toLocaleString('en-US')} characters.</p>`}`
  }
</section>`;
}

/** Indents JSON. Does not change other text, or JSON that is nested too deeply. */
function prettyText(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), undefined, 2);
  } catch {
    return text;
  }
}
