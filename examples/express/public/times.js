/** Shows every time on the page as a relative time: "2 minutes ago". */
export function showTimes() {
  for (const element of document.querySelectorAll('time')) {
    const date = new Date(element.dateTime);
    element.textContent = ago(date);
    element.title = date.toLocaleString();
  }
}

function ago(date) {
  const seconds = Math.max(0, (Date.now() - date.getTime()) / 1000);
  const format = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });
  if (seconds < 45) return 'just now';
  if (seconds < 45 * 60) return format.format(-Math.round(seconds / 60), 'minute');
  if (seconds < 22 * 3600) return format.format(-Math.round(seconds / 3600), 'hour');
  return format.format(-Math.round(seconds / 86_400), 'day');
}
