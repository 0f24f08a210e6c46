import { launch } from './example.js';

export interface Run {
  /** The exit code; null if a signal ended the program. */
  readonly code: number | null;
  /** Its output, stdout and stderr. */
  readonly output: string;
}

/** Starts a module, given as text, in a process of its own, in which `connect-drizzle` is this repository. */
export function startProgram(text: string, env: Record<string, string> = {}) {
  const args = ['--import', 'tsx', '--input-type=module', '--eval', text];
  return launch(process.execPath, args, { env });
}

/** Runs a module to its end. */
export async function runProgram(text: string, env?: Record<string, string>): Promise<Run> {
  const program = startProgram(text, env);
  const code = await program.ended;
  return { code, output: program.output };
}
