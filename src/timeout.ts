/**
 * How long anybody waits for the database.
 *
 * @module
 */
import { StoreTimeoutError } from './errors.js';

/**
 * Waits for an answer for so many seconds. Whoever has asked for it goes on without it; what was asked
 * may still take effect.
 *
 * @throws {StoreTimeoutError}
 */
export async function withinTimeout<T>(answer: Promise<T>, seconds: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new StoreTimeoutError(seconds)), seconds * 1000);
    timer.unref();
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
