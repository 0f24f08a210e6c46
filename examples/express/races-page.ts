import { type Html, html } from './html.js';
import { type Frame, page, time } from './pages.js';
import type { Outcome, RaceName, RaceResult, ShopSession } from './races.js';

/** The texts about a race. */
interface Race {
  name: RaceName;
  title: string;
  story: string;
  steps: readonly Html[];
  button: string;
  /** The meaning of an outcome. */
  held: string;
  failed: string;
  /** The reason for the expected outcome of each store. */
  ours: string;
  plain: string;
}

const slowStarts = html`<code>POST /theme</code> loads the session and takes its time.`;
const slowEnds = html`<code>POST /theme</code> sets the theme to dark. Its session is saved.`;

const races: readonly Race[] = [
  {
    name: 'lost-update',
    title: 'Two requests change one session',
    story: 'Ada chooses the dark theme. While that request runs, she puts tea into her cart.',
    steps: [
      slowStarts,
      html`<code>POST /cart</code> loads it too, adds tea, and is answered: saved.`,
      slowEnds,
      html`The next request reads the session.`,
    ],
    button: 'Run the lost update',
    held: 'Both changes are there',
    failed: 'The tea is lost',
    ours: 'The second save found that the session had changed, and merged the two changes.',
    plain: 'The second save replaced the whole session with what it had loaded before.',
  },
  {
    name: 'revived-log-out',
    title: 'A log-out while another request runs',
    story: 'Ada chooses the dark theme. While that request runs, she logs out.',
    steps: [
      slowStarts,
      html`<code>POST /log-out</code> destroys the session, and is answered: logged out.`,
      slowEnds,
      html`The next request comes with the cookie from before the log-out.`,
    ],
    button: 'Run the revived log-out',
    held: 'Ada is logged out',
    failed: 'Ada is logged in again',
    ours: 'The save found that the session had ended, and wrote nothing.',
    plain: 'The save wrote the session back. Whoever has the old cookie is Ada.',
  },
];

export function racesPage(frame: Frame, results: Partial<Record<RaceName, RaceResult>>): Html {
  return page(
    frame,
    'Two requests at once',
    html`
<main id="main">
  <section class="hello" aria-labelledby="title">
    <h1 id="title">Two requests at once</h1>
    <p class="lead">A browser sends many requests at the same time, and all of them share one session. Run two such races on connect-drizzle and on a plain store, and compare what is left.</p>
  </section>
  ${races.map((race) => raceCard(race, results[race.name]))}
  <section class="card hint" aria-labelledby="how">
    <h2 id="how">How is it run?</h2>
    <p>For real. The server starts a small shop on each store and sends it these requests over HTTP, with a cookie. A gate keeps the order: the slow request waits until the other one is answered. Nothing is timed, so the outcome is the same each time.</p>
    <p>The <a href="${source('examples/express/plain-store.ts')}">plain store</a> writes what it is given, as MemoryStore and connect-pg-simple do. Both stores use the database named below. Read <a href="${source('examples/express/races.ts')}">the code of the races</a>, or <a href="${source('docs/concurrency.md')}">how connect-drizzle decides</a>.</p>
  </section>
  <p id="news" class="visually-hidden" role="status" aria-live="polite"></p>
</main>
<script type="module" src="/races.js"></script>`,
  );
}

function raceCard(race: Race, result: RaceResult | undefined): Html {
  const title = `${race.name}-title`;
  return html`
<section class="card race" id="${race.name}" aria-labelledby="${title}">
  <h2 id="${title}">${race.title}</h2>
  <p class="lead">${race.story}</p>
  <ol class="steps">${race.steps.map((step) => html`<li>${step}</li>`)}</ol>
  <form method="post" action="/races/${race.name}"><button>${race.button}</button></form>
  <div class="result">${result && resultOf(race, result)}</div>
</section>`;
}

function resultOf(race: Race, { ranAt, ours, plain }: RaceResult): Html {
  return html`
<div class="columns">
  ${outcome(race, 'connect-drizzle', ours, ours.held && race.ours)}
  ${outcome(race, 'A plain store', plain, !plain.held && race.plain)}
</div>
<p class="ran">Run ${time(new Date(ranAt))}</p>`;
}

function outcome(race: Race, store: string, { left, held }: Outcome, why: string | false): Html {
  return html`
<section class="outcome" data-held="${String(held)}">
  <h3>${store}</h3>
  <p class="verdict">${held ? heldIcon : failedIcon}<span>${held ? race.held : race.failed}</span></p>
  <pre>${shown(left)}</pre>
  <p class="why">${why}</p>
</section>`;
}

/** Returns the session as text, one key per line. */
function shown(left: ShopSession): string {
  if (!left) return '(no session)';
  return Object.entries(left)
    .map(([key, value]) => `${key}: ${JSON.stringify(value)}`)
    .join('\n');
}

function source(path: string): string {
  return `https://github.com/connect-drizzle/connect-drizzle/blob/main/${path}`;
}

const heldIcon = html`<svg class="verdict-icon" viewBox="0 0 24 24" aria-hidden="true"><path d="m5 12.5 4.5 4.5L19 7.5"/></svg>`;
const failedIcon = html`<svg class="verdict-icon" viewBox="0 0 24 24" aria-hidden="true"><path d="m6 6 12 12M18 6 6 18"/></svg>`;
