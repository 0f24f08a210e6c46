import { insertUserSchema } from '@shared/schema';

const form = document.querySelector('form');
const output = document.querySelector('output');

form?.addEventListener('submit', async (event) => {
  event.preventDefault();
  const { success, data } = insertUserSchema.safeParse(Object.fromEntries(new FormData(form)));
  if (output === null) return;
  if (!success) {
    output.textContent = 'Enter a name and a password.';
    return;
  }
  const { ok } = await fetch('/api/login', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(data),
  });
  output.textContent = ok ? 'You are logged in.' : 'The name or the password is wrong.';
});
