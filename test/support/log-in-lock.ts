/** The advisory lock that keeps the log-ins of `log-in.ts` back. */
export const logInLock = 7_421;
