/** The style sheet of the page. */
export const STYLE = `:root {
  --paper: #f5f4f0; --card: #ffffff; --ink: #1c1b19; --muted: #5c5850; --line: #dedad1;
  --field-line: #8a857b; --accent: #0b5f5a; --accent-strong: #084b47; --on-accent: #ffffff;
  --accent-soft: #e1efed; --danger: #9f2419; --danger-strong: #7f1c13; --on-danger: #ffffff;
  --danger-soft: #fbeae7; --live: #1d9a5b; --radius: 14px;
  --shadow: 0 1px 2px rgb(28 27 25 / 6%), 0 6px 20px rgb(28 27 25 / 5%);
}

@media (prefers-color-scheme: dark) {
  :root {
    --paper: #141615; --card: #1d201f; --ink: #eeece7; --muted: #aaa69d; --line: #343836;
    --field-line: #7b7f7b; --accent: #63cabf; --accent-strong: #86d9d0; --on-accent: #0b1f1d;
    --accent-soft: #1c3532; --danger: #ff9d90; --danger-strong: #ffb8ae; --on-danger: #2b0f0b;
    --danger-soft: #3a211e; --live: #3fc380; --shadow: none;
  }
}

*, *::before, *::after { box-sizing: border-box; }
[hidden] { display: none !important; }
.exact { margin-left: 0.5rem; color: var(--muted); font-size: 0.875rem; }

body {
  max-width: 66rem; min-height: 100dvh; margin: 0 auto; padding: 0 1.25rem 2rem;
  background: var(--paper); color: var(--ink);
  font: 1rem / 1.5 Inter, -apple-system, "Segoe UI", Roboto, system-ui, sans-serif;
  overflow-wrap: anywhere;
}

h1, h2, p, ul, dl, dd, figure, pre { margin: 0; padding: 0; }
h1 { font-size: clamp(1.625rem, 1.35rem + 1.6vw, 2.125rem); line-height: 1.15; letter-spacing: -0.02em; }
h2 { font-size: 1.0625rem; line-height: 1.3; }
a { color: var(--accent); text-underline-offset: 0.15em; }
a:hover { color: var(--accent-strong); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
main:focus, h1:focus-visible, h2:focus-visible { outline: none; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; font-size: 0.875em; }

.visually-hidden {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap;
}
.skip { position: absolute; left: 1rem; top: -4rem; padding: 0.5rem 1rem; border-radius: 8px; background: var(--card); }
.skip:focus { top: 0.75rem; }

/* Head */

.top { display: flex; flex-wrap: wrap; align-items: center; gap: 0.5rem 1.5rem; padding: 1.25rem 0 1rem; }
.brand { display: flex; align-items: center; gap: 0.5rem; font-weight: 650; }
.mark { width: 1.75rem; height: 1.75rem; fill: none; stroke: var(--accent); stroke-width: 2; stroke-linecap: round; }
nav[aria-label="Pages"] { display: flex; gap: 0.25rem; }
nav[aria-label="Pages"] a {
  padding: 0.375rem 0.75rem; border-radius: 8px; color: var(--muted); text-decoration: none; font-weight: 550;
}
nav[aria-label="Pages"] a:hover { color: var(--ink); background: var(--accent-soft); }
nav[aria-label="Pages"] a[aria-current] { color: var(--accent); background: var(--accent-soft); }
.live { display: flex; align-items: center; gap: 0.4375rem; margin-left: auto; color: var(--muted); font-size: 0.875rem; }
.dot { width: 0.5rem; height: 0.5rem; border-radius: 50%; background: var(--field-line); }
.live[data-state="on"] .dot { background: var(--live); }

/* Blocks */

main { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1.125rem; }
.head { display: flex; flex-wrap: wrap; align-items: baseline; justify-content: space-between; gap: 0.25rem 1.5rem; }
.card {
  padding: 1.25rem 1.5rem; border: 1px solid var(--line); border-radius: var(--radius);
  background: var(--card); box-shadow: var(--shadow);
}
.hint { background: none; box-shadow: none; }
.hint p, .lead, .empty { color: var(--muted); }
.hint p, .lead { margin-top: 0.25rem; }
.empty { padding: 1.5rem 0 0.5rem; }
.message { display: grid; justify-items: start; gap: 0.75rem; max-width: 32rem; margin: 2rem auto; }
.notice { padding: 0.75rem 1rem; border-radius: 10px; background: var(--accent-soft); }
.badge {
  display: inline-block; padding: 0.0625rem 0.5rem; border-radius: 99px; background: var(--accent-soft);
  color: var(--accent); font-size: 0.8125rem; font-weight: 600; white-space: nowrap;
}
.badge.expired, .badge.revoked { background: var(--danger-soft); color: var(--danger); }

.tiles { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0.75rem; }
.tiles div {
  display: flex; flex-direction: column-reverse; justify-content: flex-end; padding: 0.875rem 1.125rem;
  border: 1px solid var(--line); border-radius: var(--radius); background: var(--card);
}
.tiles dt { color: var(--muted); font-size: 0.875rem; line-height: 1.35; }
.tiles dd { font-size: 1.5rem; font-weight: 650; letter-spacing: -0.01em; font-variant-numeric: tabular-nums; }

/* The list */

.sessions { list-style: none; margin-top: 0.875rem; }
.session {
  display: grid; grid-template-columns: minmax(0, 1.5fr) minmax(12rem, 1fr) auto; align-items: center;
  gap: 0.5rem 1.25rem; padding: 0.875rem 0; border-top: 1px solid var(--line);
}
.name { font-weight: 600; }
.name .badge { margin-left: 0.375rem; }
.described { color: var(--muted); font-size: 0.875rem; line-height: 1.45; }
dl.described { display: flex; flex-wrap: wrap; gap: 0 0.875rem; margin-top: 0.125rem; }
.described div { display: flex; flex-wrap: wrap; gap: 0 0.3125rem; }
.described dt::after { content: ":"; }
.described dd { color: var(--ink); }
.times { display: grid; color: var(--muted); font-size: 0.875rem; line-height: 1.45; }
.buttons { display: flex; gap: 0.5rem; }
.buttons button, .buttons .button { min-height: 2.5rem; padding: 0.375rem 0.875rem; font-size: 0.9375rem; }
.buttons .danger { border-color: var(--line); font-weight: 550; }
.buttons .danger:hover { border-color: var(--danger); }
.pager { display: flex; gap: 0.5rem; padding-top: 1rem; border-top: 1px solid var(--line); }

.facts { margin-top: 0.75rem; }
.facts div {
  display: grid; grid-template-columns: 14rem minmax(0, 1fr); gap: 0 1rem; padding: 0.5rem 0; border-top: 1px solid var(--line);
}
.facts dt { color: var(--muted); }
.facts dd { font-variant-numeric: tabular-nums; }
.content {
  max-height: 32rem; margin-top: 0.75rem; padding: 1rem; overflow: auto; border: 1px solid var(--line);
  border-radius: 10px; background: var(--paper); white-space: pre-wrap; tab-size: 2;
}

/* Statistics */

.chart { margin-top: 1rem; }
.chart svg { display: block; width: 100%; height: 11rem; border-bottom: 1px solid var(--field-line); fill: var(--accent); }
.chart figcaption {
  display: flex; justify-content: space-between; gap: 1rem; padding-top: 0.375rem; color: var(--muted); font-size: 0.8125rem;
}
.numbers { margin-top: 0.75rem; }
summary { width: fit-content; cursor: pointer; }
.confirm summary { display: inline-flex; }
table { width: 100%; margin-top: 0.75rem; border-collapse: collapse; font-size: 0.9375rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.375rem 0.75rem 0.375rem 0; border-top: 1px solid var(--line); text-align: left; }
th { color: var(--muted); font-weight: 550; }
th:last-child, td:last-child { padding-right: 0; text-align: right; }

/* Forms */

button, .button {
  display: inline-flex; align-items: center; justify-content: center; min-height: 2.75rem; padding: 0.5rem 1.125rem; border: 1px solid transparent; border-radius: 10px;
  background: var(--accent); color: var(--on-accent); font: inherit; font-weight: 600; line-height: 1.5;
  text-decoration: none; cursor: pointer;
}
button:hover, .button:hover { background: var(--accent-strong); color: var(--on-accent); }
.plain { border-color: var(--line); background: var(--card); color: var(--ink); font-weight: 500; }
.plain:hover { border-color: var(--field-line); background: var(--paper); color: var(--ink); }
.danger { border-color: var(--danger); background: var(--card); color: var(--danger); }
.danger:hover { background: var(--danger-soft); color: var(--danger); }
.danger.solid { border-color: transparent; background: var(--danger); color: var(--on-danger); }
.danger.solid:hover { background: var(--danger-strong); color: var(--on-danger); }

.search { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0.3125rem; }
.search label { font-weight: 600; }
.row { display: flex; gap: 0.5rem; }
input {
  flex: 1; min-width: 0; min-height: 2.75rem; padding: 0.5rem 0.75rem; border: 1px solid var(--field-line);
  border-radius: 10px; background: var(--card); color: var(--ink); font: inherit;
}
.actions { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 0.625rem; margin-top: 0.875rem; }
.confirm summary { list-style: none; }
.confirm summary::-webkit-details-marker { display: none; }
.confirm[open] { flex-basis: 100%; }
.confirm form {
  display: grid; justify-items: start; gap: 0.75rem; margin-top: 0.625rem; padding: 1rem; border-radius: 10px;
  background: var(--danger-soft);
}

@media (max-width: 46rem) {
  .session { grid-template-columns: minmax(0, 1fr); align-items: start; }
  .buttons { display: grid; grid-template-columns: 1fr 1fr; margin-top: 0.25rem; }
  .buttons form, .buttons button, .buttons .button { width: 100%; }
  .buttons button, .buttons .button { min-height: 2.75rem; }
}

@media (max-width: 34rem) {
  body { padding: 0 1rem 1.5rem; }
  .card { padding: 1.125rem; }
  .tiles div { padding: 0.75rem; }
  .tiles dd { font-size: 1.25rem; }
  .tiles dt { font-size: 0.8125rem; }
  .facts div { grid-template-columns: minmax(0, 1fr); }
  .actions > *, .actions button, .actions .button { width: 100%; }
}

@keyframes arrive { from { background: var(--accent-soft); box-shadow: 0 0 0 0.5rem var(--accent-soft); } }
@keyframes breathe { 50% { opacity: 0.35; } }

@media (prefers-reduced-motion: no-preference) {
  .session.new { animation: arrive 2.5s ease-out; }
  .live[data-state="on"] .dot { animation: breathe 2.4s ease-in-out infinite; }
}
`;
