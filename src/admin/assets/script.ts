/** The script of the page. Everything also works without it. */
export const SCRIPT = `// Keeps an open page up to date, and says when times were.

const root = document.documentElement.dataset.root;
const live = document.querySelector('#live');
const news = document.querySelector('#news');

// The page reads a list again at most once in this time.
const REFRESH_MS = 3000;

// The pause before the page opens a refused stream again.
const AGAIN_MS = 5000;

showTimes();
setInterval(showTimes, 10_000);

let isLeaving = false;
document.addEventListener('submit', () => {
  isLeaving = true;
});
// After "Back", the browser may show an old copy of the page.
addEventListener('pageshow', (event) => {
  isLeaving = false;
  if (event.persisted) location.reload();
});

if (live) listen();

function listen() {
  const events = new EventSource(root + 'events');
  let seen = '{"changed":0,"ended":0}';
  let isFirst = true;
  live.hidden = false;
  say('off', 'Connecting …');
  events.addEventListener('open', () => {
    say('on', 'Live');
    // No message contains the events while the stream was closed.
    if (!isFirst) refreshSoon();
    isFirst = false;
    seen = '{"changed":0,"ended":0}';
  });
  events.addEventListener('counts', ({ data }) => {
    if (data === seen) return;
    seen = data;
    refreshSoon();
  });
  events.addEventListener('error', () => {
    say('off', 'Not live');
    // CLOSED means that the server refused the stream. Otherwise the browser opens it again by itself.
    if (events.readyState === EventSource.CLOSED) checkAccess();
  });
}

function say(state, text) {
  live.dataset.state = state;
  live.querySelector('#live-text').textContent = text;
}

/** Closes the page if the admin has logged out. Otherwise a proxy may have refused the stream: tries again. */
async function checkAccess() {
  const response = await fetch(root, { method: 'HEAD', redirect: 'manual' }).catch(() => undefined);
  if (isLeaving) return;
  if (response && isDenied(response)) close();
  else setTimeout(listen, AGAIN_MS);
}

/** Whether access is denied. Instead of 401 or 403, an app may redirect to its log-in page. */
function isDenied({ status, type }) {
  return status === 401 || status === 403 || type === 'opaqueredirect';
}

/** Removes everything that the admin saw from the page. */
function close() {
  const main = document.querySelector('main');
  main.replaceChildren(document.querySelector('#gone').content);
  document.title = 'Closed';
  live.hidden = true;
  main.querySelector('h1').focus();
}

let timer;
let isReading = false;
let isStale = false;

function refreshSoon() {
  isStale = true;
  timer ??= setTimeout(refresh, document.hidden ? 10 * REFRESH_MS : 300);
}

async function refresh() {
  if (isReading || isLeaving) return;
  isReading = true;
  isStale = false;
  try {
    const response = await fetch(location.href, { headers: { Accept: 'text/html' } });
    if (response.ok && !isLeaving) {
      show(new DOMParser().parseFromString(await response.text(), 'text/html'));
    } else if (isDenied(response)) close();
  } catch {
    // The stream shows that the server is not available.
  }
  isReading = false;
  timer = setTimeout(() => {
    timer = undefined;
    if (isStale) refreshSoon();
  }, REFRESH_MS);
}

/** Replaces the parts of the page that can change. The server has escaped the new ones. */
function show(fresh) {
  for (const part of document.querySelectorAll('[data-refresh]')) {
    const other = fresh.getElementById(part.id);
    if (!other) continue;
    const before = idsIn(part);
    const key = part.contains(document.activeElement) && document.activeElement.dataset.key;
    part.replaceChildren(...document.adoptNode(other).childNodes);
    if (key) (part.querySelector('[data-key="' + CSS.escape(key) + '"]') ?? heading(part)).focus();
    announce(part, before, idsIn(part));
  }
  showTimes();
}

function heading(part) {
  return part.parentElement.querySelector('h2');
}

function announce(part, before, after) {
  const came = [...after].filter((id) => !before.has(id));
  const went = [...before].filter((id) => !after.has(id));
  for (const id of came) part.querySelector('[data-id="' + CSS.escape(id) + '"]').classList.add('new');
  const texts = [];
  if (came.length > 0) texts.push(came.length + (came.length === 1 ? ' new session.' : ' new sessions.'));
  if (went.length > 0) texts.push(went.length + (went.length === 1 ? ' session is gone.' : ' sessions are gone.'));
  if (texts.length > 0) news.textContent = texts.join(' ');
}

function idsIn(part) {
  return new Set(Array.from(part.querySelectorAll('[data-id]'), ({ dataset }) => dataset.id));
}

function showTimes() {
  for (const element of document.querySelectorAll('time')) {
    const date = new Date(element.dateTime);
    element.title = date.toLocaleString();
    element.textContent = fromNow((date.getTime() - Date.now()) / 1000);
  }
  for (const element of document.querySelectorAll('.exact')) element.hidden = false;
}

function fromNow(seconds) {
  const format = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });
  const size = Math.abs(seconds);
  if (size < 45) return seconds > 0 ? 'in less than a minute' : 'just now';
  if (size < 45 * 60) return format.format(Math.round(seconds / 60), 'minute');
  if (size < 22 * 3600) return format.format(Math.round(seconds / 3600), 'hour');
  return format.format(Math.round(seconds / 86_400), 'day');
}
`;
