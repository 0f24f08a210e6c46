/** The advisory lock that holds the log-ins of `log-in.ts`. */
export const logInLock = 7_421;
