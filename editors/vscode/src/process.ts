// Processes of the program: how its ends are told, its version asked, and the environment it gets.

import { execFile, type ChildProcess } from 'node:child_process';

/** How long `tandem --version` may take: it loads nothing, so this is for a machine out of breath. */
const VERSION_MS = 10_000;

/** How a process ended, in words. */
export function ending(code: number | null, signal: NodeJS.Signals | null): string {
  return signal === null ? `exit code ${code ?? '?'}` : `signal ${signal}`;
}

/** What a program says of its version. */
export type Version =
  | { readonly said: string }
  /** It cannot be run. */
  | { readonly failed: string };

/** Runs `PROGRAM --version`. */
export function askVersion(
  program: string,
  environment: NodeJS.ProcessEnv,
  limitMs = VERSION_MS,
): Promise<Version> {
  return new Promise((resolve) => {
    const options = {
      env: environment,
      timeout: limitMs,
      killSignal: 'SIGKILL',
      windowsHide: true,
    } as const;
    const child = execFile(program, ['--version'], options, (error, stdout) => {
      if (error === null) {
        resolve({ said: stdout });
      } else if (error.killed) {
        resolve({ failed: `asked for its version, it did not answer within ${limitMs / 1000} s` });
      } else if (typeof error.code === 'number') {
        resolve({ said: stdout });
      } else {
        resolve({ failed: error.code ?? error.message });
      }
    });
    child.stdin?.end();
  });
}

/** The environment of a process that may have the key; without one, what it inherits is left. */
export function withKey(
  environment: NodeJS.ProcessEnv,
  key: string | undefined,
): NodeJS.ProcessEnv {
  return key === undefined ? environment : { ...environment, ANTHROPIC_API_KEY: key };
}

/** Waits for a process's end, and kills it after so many milliseconds. */
export function endWithin(child: ChildProcess, ms: number): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) {
    return Promise.resolve();
  }
  return new Promise((resolve) => {
    const timer = setTimeout(() => child.kill('SIGKILL'), ms);
    child.once('exit', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
