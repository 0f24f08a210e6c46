import { bundleProgram } from './bundle.js';
import { launch } from './example.js';

export interface Run {
  /** The exit code; null if a signal ended the program. */
  readonly code: number | null;
  /** Its output, stdout and stderr. */
  readonly output: string;
}

/** Starts a module, given as text, in a process of its own, in which `connect-drizzle` is this repository. */
export async function startProgram(
  text: string,
  env: Record<string, string> = {},
): Promise<ReturnType<typeof launch>> {
  // For PGlite, as in vitest.config.ts.
  return launch(process.execPath, ['--liftoff-only', await bundleProgram({ text })], { env });
}

/** Runs a module to its end. */
export async function runProgram(text: string, env?: Record<string, string>): Promise<Run> {
  const program = await startProgram(text, env);
  const code = await program.ended;
  return { code, output: program.output };
}
