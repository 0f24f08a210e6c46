// Updates the list of devices while the page is open, and shows when this session has ended.

import { showTimes } from './times.js';

const list = document.querySelector('#devices');
const live = document.querySelector('#live');
const liveText = document.querySelector('#live-text');
const news = document.querySelector('#news');

showTimes();
setInterval(showTimes, 10_000);

let leaving = false;
document.addEventListener('submit', () => {
  leaving = true;
});
// After "Back", the browser may show an old copy of the page.
addEventListener('pageshow', (event) => {
  if (event.persisted) location.reload();
});

const events = new EventSource('/events');
live.hidden = false;
say('connecting', 'Connecting …');
events.addEventListener('open', () => say('on', 'Live'));
events.addEventListener('error', () => say('off', 'Not live: trying again …'));
events.addEventListener('devices', ({ data }) => {
  if (!leaving) showDevices(data);
});
events.addEventListener('ended', () => {
  events.close();
  if (!leaving) showEnded();
});

function say(state, text) {
  live.dataset.state = state;
  liveText.textContent = text;
}

/** Inserts the new list. The server has created and escaped the markup. */
function showDevices(markup) {
  const before = names();
  const focused = document.activeElement?.dataset.key;
  list.innerHTML = markup;
  showTimes();
  if (focused) {
    const button = list.querySelector(`[data-key="${CSS.escape(focused)}"]`);
    (button ?? document.querySelector('#devices-title')).focus();
  }
  const after = names();
  const came = [...after]
    .filter(([id]) => !before.has(id))
    .map(([id, name]) => [id, `${name} has logged in.`]);
  const went = [...before]
    .filter(([id]) => !after.has(id))
    .map(([, name]) => `${name} is logged out.`);
  for (const [id] of came) list.querySelector(`[data-id="${CSS.escape(id)}"]`).classList.add('new');
  const texts = [...came.map(([, text]) => text), ...went];
  if (texts.length > 0) news.textContent = texts.join(' ');
}

function names() {
  const items = list.querySelectorAll('[data-id]');
  return new Map(Array.from(items, ({ dataset }) => [dataset.id, dataset.name]));
}

/** Removes everything about the account from the page. */
function showEnded() {
  document.querySelector('.who')?.remove();
  const main = document.querySelector('main');
  main.className = 'door';
  main.replaceChildren(document.querySelector('#ended').content);
  document.title = `Logged out · ${document.title}`;
  main.querySelector('h1').focus();
}
