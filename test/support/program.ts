import { launch } from './example.js';

export interface Run {
  /** The exit code; null where a signal ended it. */
  readonly code: number | null;
  /** What it wrote, to both outputs. */
  readonly output: string;
}

/** Runs the text of a module in a process of its own, where `connect-drizzle` is this repository's. */
export function startProgram(text: string, env: Record<string, string> = {}) {
  const args = ['--import', 'tsx', '--input-type=module', '--eval', text];
  return launch(process.execPath, args, { env });
}

/** The same to its end. */
export async function runProgram(text: string, env?: Record<string, string>): Promise<Run> {
  const program = startProgram(text, env);
  const code = await program.ended;
  return { code, output: program.output };
}
