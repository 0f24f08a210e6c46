import express from 'express';
import { setUpAuth } from './auth';

const app = express();
app.use(express.json());
setUpAuth(app);

app.get('/api/user', (request, response) => {
  if (request.user === undefined) return void response.sendStatus(401);
  response.json({ username: request.user.username, cart: request.session.cart ?? [] });
});

app.post('/api/cart', (request, response) => {
  request.session.cart = [...(request.session.cart ?? []), String(request.body.item)];
  response.json({ cart: request.session.cart });
});

app.use(express.static(new URL('public', import.meta.url).pathname));

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
  const address = server.address();
  if (address !== null && typeof address === 'object') console.log(`port ${address.port}`);
});
