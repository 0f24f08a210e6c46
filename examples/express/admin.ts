import type { DrizzleStore } from 'connect-drizzle';
import { sessionAdmin } from 'connect-drizzle/admin';
import type { RequestHandler } from 'express';
import type { Accounts } from './accounts.js';
import { browserName } from './devices.js';

/** The page on which admins see and end all sessions. */
export function adminPage(store: DrizzleStore, accounts: Accounts): RequestHandler {
  return sessionAdmin({
    store,
    home: '/',
    // Reads the database each time, so that a former admin loses access at once.
    authorize: async ({ session }) =>
      session.account !== undefined && (await accounts.isAdmin(session.account.id)),
    describe: ({ account, device }) => ({
      Name: account?.name,
      Browser: device && browserName(device.agent),
      Address: device?.address,
    }),
    // Your app writes this to its audit log. JSON keeps a name on one line, because the user has chosen it.
    audit: ({ action, id, userId, request }) => {
      const admin = request.session.account?.name;
      console.log('Audit:', JSON.stringify({ admin, action, session: id, userId }));
    },
  });
}
