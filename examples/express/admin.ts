import type { DrizzleStore } from 'connect-drizzle';
import { sessionAdmin } from 'connect-drizzle/admin';
import type { RequestHandler } from 'express';
import type { Accounts } from './accounts.js';
import { browserName } from './devices.js';

/** The page that shows and ends everybody's sessions, for admins only. */
export function adminPage(store: DrizzleStore, accounts: Accounts): RequestHandler {
  return sessionAdmin({
    store,
    // Asks the database each time, so that an admin who is no longer one is refused at once.
    authorize: async ({ session }) =>
      session.account !== undefined && (await accounts.isAdmin(session.account.id)),
    describe: ({ account, device }) => ({
      Name: account?.name,
      Browser: device && browserName(device.agent),
      Address: device?.address,
    }),
    // Your app writes this to its audit log. A user's name comes from the user: keep it on one line.
    audit: ({ action, id, userId, request }) => {
      const admin = request.session.account?.name;
      console.log('Audit:', JSON.stringify({ admin, action, session: id, userId }));
    },
  });
}
