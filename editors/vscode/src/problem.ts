// What can be wrong, in words: each problem is one message that ends with the next step, and is
// shown once until the user asks for a restart.

import { OLDEST } from './version';

/** What a message's button does. */
export type Step = 'settings' | 'log' | 'restart';

/** Something that the user should know. */
export interface Problem {
  /** What it is about: one message for each. */
  readonly key: string;
  readonly severity: 'error' | 'warning';
  readonly message: string;
  /** In the order of the buttons. */
  readonly steps: readonly Step[];
}

/** What a step's button says. */
export const STEP_TITLES: Readonly<Record<Step, string>> = {
  settings: 'Open Settings',
  log: 'Show Log',
  restart: 'Restart Tandem',
};

/** A problem that ends an attempt to start. */
export class Trouble extends Error {
  constructor(readonly problem: Problem) {
    super(problem.message);
  }
}

export function missing(where: 'setting' | 'path', setting: string): Problem {
  return {
    key: 'missing',
    severity: 'error',
    message:
      where === 'setting'
        ? `"tandem.path" is "${setting}", which is not the full path of a program that can be run. Correct it, or empty it to have the program found on PATH.`
        : 'The program "tandem" is not found on PATH. Install it, or set "tandem.path" to where it is; then restart Tandem.',
    steps: ['settings', 'restart'],
  };
}

export function notRunnable(program: string, why: string): Problem {
  return {
    key: 'not-runnable',
    severity: 'error',
    message: `"${program}" cannot be run: ${why}. Check that it is made for this machine; then restart Tandem.`,
    steps: ['settings', 'restart'],
  };
}

export function notTandem(program: string, said: string): Problem {
  const first = said.trim().split('\n', 1)[0]?.slice(0, 60) ?? '';
  const words = first === '' ? 'nothing' : `"${first}"`;
  return {
    key: 'not-tandem',
    severity: 'error',
    message: `"${program}" is not Tandem: asked for its version, it said ${words}. Set "tandem.path" to the program; then restart Tandem.`,
    steps: ['settings', 'restart'],
  };
}

export function tooOld(program: string, version: string): Problem {
  return {
    key: 'too-old',
    severity: 'error',
    message: `"${program}" is Tandem ${version}; this extension needs ${OLDEST} or later. Update the program; then restart Tandem.`,
    steps: ['settings', 'restart'],
  };
}

export function silent(seconds: number): Problem {
  return {
    key: 'silent',
    severity: 'warning',
    message: `The server has not answered for ${seconds} s. Look at its log; then restart Tandem.`,
    steps: ['log', 'restart'],
  };
}

export function crashed(times: number, how: string): Problem {
  return {
    key: 'crashed',
    severity: 'error',
    message: `The server ended ${times} times (${how}) and is not started again. Look at its log; then restart Tandem.`,
    steps: ['log', 'restart'],
  };
}

export function notProtocol(program: string): Problem {
  return {
    key: 'not-protocol',
    severity: 'error',
    message: `What "${program}" prints is not the language server protocol. If "tandem.path" names a script, it must print nothing itself. Then restart Tandem.`,
    steps: ['settings', 'log', 'restart'],
  };
}

export function notRunning(): Problem {
  return {
    key: 'not-running',
    severity: 'warning',
    message: 'The server does not run. Look at its log; then restart Tandem.',
    steps: ['log', 'restart'],
  };
}
