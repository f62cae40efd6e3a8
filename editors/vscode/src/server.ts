// The server of this window: finds the program, starts it, and speaks with it.

import { spawn, type ChildProcess } from 'node:child_process';
import { homedir } from 'node:os';
import { createInterface } from 'node:readline';

import * as vscode from 'vscode';
import {
  ErrorCodes,
  ResponseError,
  StreamMessageReader,
  StreamMessageWriter,
} from 'vscode-languageclient/node';

import { find } from './binary';
import { TandemClient } from './client';
import * as problems from './problem';
import { Trouble } from './problem';
import { askVersion, ending, endWithin, withKey } from './process';
import type { Status } from './status';
import { Supervisor, type End, type Phase, type Run } from './supervisor';
import { isOlder, OLDEST, parseVersion } from './version';

/** Codes of errors that this side's end of the connection makes. */
const OURS: ReadonlySet<number> = new Set([
  ErrorCodes.MessageWriteError,
  ErrorCodes.PendingResponseRejected,
]);

/** How long a server may take to end by the protocol before it is killed. */
const STOP_MS = 2000;

/** What the server needs from the rest of the extension. */
export interface ServerParts {
  readonly extension: vscode.Uri;
  readonly log: vscode.LogOutputChannel;
  readonly key: () => Promise<string | undefined>;
  readonly settings: () => unknown;
  readonly tell: (problem: problems.Problem) => void;
}

/** The program, checked. */
export interface Program {
  readonly path: string;
  readonly version: string;
}

export class Server implements vscode.Disposable {
  readonly #supervisor: Supervisor;
  readonly #changed = new vscode.EventEmitter<void>();
  #client: TandemClient | undefined;
  #status: Status | undefined;
  #paused = false;

  /** Fires when the phase or the status is another. */
  readonly onDidChange = this.#changed.event;

  constructor(private readonly parts: ServerParts) {
    const clock = {
      now: () => performance.now(),
      after(ms: number, call: () => void) {
        const timer = setTimeout(call, ms);
        return () => {
          clearTimeout(timer);
        };
      },
    };
    this.#supervisor = new Supervisor(
      () => this.#launch(),
      clock,
      parts.tell,
      (phase) => {
        parts.log.info(`server: ${phase}`);
        if (phase !== 'running') {
          this.#status = undefined;
        } else if (this.#paused) {
          void this.execute('tandem.pause').catch((error: unknown) => {
            parts.log.warn(`the server was not paused: ${String(error)}`);
          });
        }
        this.#changed.fire();
      },
    );
  }

  get phase(): Phase {
    return this.#supervisor.phase;
  }

  /** What the server said last of itself. */
  get status(): Status | undefined {
    return this.#status;
  }

  start(): Promise<void> {
    return this.#supervisor.start();
  }

  restart(): Promise<void> {
    return this.#supervisor.restart();
  }

  stop(): Promise<void> {
    return this.#supervisor.stop();
  }

  dispose(): void {
    this.#changed.dispose();
  }

  /** Asks the server; rejects if none runs. */
  async request<T>(method: string, params: unknown): Promise<T> {
    if (this.#client === undefined || this.phase !== 'running') {
      throw new Trouble(problems.notRunning());
    }
    return this.#client.sendRequest<T>(method, params);
  }

  /** Runs a command of the server; rejects if none runs. */
  execute<T>(command: string, ...args: unknown[]): Promise<T> {
    return this.request<T>('workspace/executeCommand', { command, arguments: args });
  }

  /** Where processes are started: a folder of the workspace, as a terminal would be. */
  folder(): string | undefined {
    return vscode.workspace.workspaceFolders?.find(({ uri }) => uri.scheme === 'file')?.uri.fsPath;
  }

  /** Whether this window is paused; a server that is started later is, too. */
  get paused(): boolean {
    return this.#paused;
  }

  /** Pauses or resumes this window. */
  async pause(paused: boolean): Promise<void> {
    this.#paused = paused;
    if (this.phase === 'running') {
      await this.execute(paused ? 'tandem.pause' : 'tandem.resume');
    }
  }

  /** The program that would be started now; rejects with [`Trouble`] if there is none that can be. */
  async program(): Promise<Program> {
    const setting = vscode.workspace.getConfiguration('tandem').get('path', '');
    const found = await find({
      setting,
      extension: this.parts.extension.fsPath,
      path: process.env['PATH'],
      home: homedir(),
      windows: process.platform === 'win32',
    });
    if ('not' in found) {
      throw new Trouble(problems.missing(found.not, setting));
    }
    const { program } = found;
    const answer = await askVersion(program, process.env);
    if ('failed' in answer) {
      throw new Trouble(problems.notRunnable(program, answer.failed));
    }
    const version = parseVersion(answer.said);
    if (version === undefined) {
      throw new Trouble(problems.notTandem(program, answer.said));
    }
    if (isOlder(version, OLDEST)) {
      throw new Trouble(problems.tooOld(program, version));
    }
    return { path: program, version };
  }

  async #launch(): Promise<Run> {
    const program = await this.program();
    this.parts.log.info(`starting ${program.path}, version ${program.version}`);
    const child = spawn(program.path, ['lsp'], {
      cwd: this.folder(),
      env: withKey(process.env, await this.parts.key()),
      stdio: 'pipe',
      windowsHide: true,
    });
    let end: (end: End) => void = () => undefined;
    const ended = new Promise<End>((resolve) => {
      end = resolve;
    });
    child.once('error', ({ message }) => {
      end({ how: message, problem: problems.notRunnable(program.path, message) });
    });
    let refusal: string | undefined;
    child.once('exit', (code, signal) => {
      end({ how: refusal ?? ending(code, signal) });
    });
    // A server that ended takes no more messages; its end is told by `exit`.
    child.stdin.on('error', (error) => {
      this.parts.log.debug(`the server's input: ${error.message}`);
    });
    const reader = new StreamMessageReader(child.stdout);
    reader.onError(({ message }) => {
      this.parts.log.error(`the server's output: ${message}`);
      end({ how: 'not the protocol', problem: problems.notProtocol(program.path) });
      child.kill();
      void endWithin(child, STOP_MS);
    });
    // What the server logs has its own levels in it.
    createInterface({ input: child.stderr }).on('line', (line) => {
      this.parts.log.info(line);
    });
    const client = new TandemClient({
      log: this.parts.log,
      settings: this.parts.settings,
      connect: () => Promise.resolve({ reader, writer: new StreamMessageWriter(child.stdin) }),
    });
    client.onNotification('tandem/status', (status: Status) => {
      if (this.#client === client) {
        this.#status = status;
        this.#changed.fire();
      }
    });
    this.#client = client;
    const ready = client.start().catch((error: unknown) => {
      // It is ended for that, and the signal would say nothing. Where it ended by itself, its exit
      // code says more than what that did to the connection.
      refusal =
        error instanceof ResponseError && !OURS.has(error.code)
          ? `it refused: ${error.message}`
          : undefined;
      throw error;
    });
    return {
      ready,
      ended,
      stop: () => stop(client, child),
    };
  }
}

async function stop(client: TandemClient, child: ChildProcess): Promise<void> {
  try {
    await client.dispose(STOP_MS);
  } catch {
    // It was not running, or did not end in time.
  }
  child.stdin?.end();
  await endWithin(child, STOP_MS);
}
