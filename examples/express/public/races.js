// Runs a race without leaving the page. The page also works without this script.

import { showTimes } from './times.js';

const news = document.querySelector('#news');

showTimes();
setInterval(showTimes, 10_000);

for (const race of document.querySelectorAll('.race')) {
  const form = race.querySelector('form');
  let running = false;
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (running) return;
    running = true;
    race.setAttribute('aria-busy', 'true');
    news.textContent = 'Running …';
    try {
      const response = await fetch(form.action, { method: 'POST' });
      if (!response.ok) throw new Error(response.statusText);
      show(race, new DOMParser().parseFromString(await response.text(), 'text/html'));
    } catch {
      // Let the browser send the form, so that it shows the error page.
      form.submit();
    }
    race.removeAttribute('aria-busy');
    running = false;
  });
}

/** Shows the result of one race from the page that the server returned. */
function show(race, page) {
  const result = page.getElementById(race.id).querySelector('.result');
  result.classList.add('new');
  race.querySelector('.result').replaceWith(result);
  showTimes();
  const outcomes = [...result.querySelectorAll('.outcome')];
  news.textContent = outcomes
    .map((outcome) => {
      const store = outcome.querySelector('h3').textContent;
      return `${store}: ${outcome.querySelector('.verdict').textContent.trim()}.`;
    })
    .join(' ');
}
