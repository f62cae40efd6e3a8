// A program that serves on a local port and says where: code-server, and what stands in for Claude.

import { spawn, type ChildProcess } from 'node:child_process';

import { until } from './until.mts';

export class LocalServer {
  readonly #child: ChildProcess;
  #said = '';

  /** Starts it, in a process group of its own: what it starts ends with it. */
  constructor(program: string, args: readonly string[], environment: NodeJS.ProcessEnv) {
    this.#child = spawn(program, args, { env: environment, detached: true });
    const keep = (piece: Buffer) => {
      this.#said += piece.toString();
    };
    this.#child.stdout?.on('data', keep);
    this.#child.stderr?.on('data', keep);
  }

  /** What it wrote so far. */
  get said(): string {
    return this.#said;
  }

  /** Where it serves, once it says so. */
  address(): Promise<string> {
    return until('the address of a local server', () => {
      if (this.#child.exitCode !== null) {
        throw new Error(`the server ended:\n${this.#said}`);
      }
      return Promise.resolve(/http:\/\/127\.0\.0\.1:\d+/.exec(this.#said)?.[0]);
    });
  }

  async stop(): Promise<void> {
    const { pid } = this.#child;
    if (pid === undefined) {
      return;
    }
    const signal = (name: NodeJS.Signals | 0) => {
      try {
        return process.kill(-pid, name);
      } catch {
        return false;
      }
    };
    signal('SIGTERM');
    try {
      await until('the end of a local server', () => Promise.resolve(!signal(0)), 10_000);
    } catch {
      signal('SIGKILL');
    }
  }
}
