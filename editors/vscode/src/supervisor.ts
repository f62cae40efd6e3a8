// The server's life: starts it, starts it again after growing pauses when it crashes, and gives up
// with one message. Knows neither VS Code nor processes, which are behind `Launch`.

import { crashed, silent, Trouble, type Problem } from './problem';

/** A server that was started. */
export interface Run {
  /** Settles when the server has answered `initialize`, or cannot any more. */
  readonly ready: Promise<void>;
  /** Resolves when the server has ended; never rejects. */
  readonly ended: Promise<End>;
  /** Ends the server; resolves when it has ended. */
  stop(): Promise<void>;
}

/** How a server ended. */
export interface End {
  /** In words, such as `exit code 1`. */
  readonly how: string;
  /** What is wrong, where starting it again would not help. */
  readonly problem?: Problem;
}

/** Starts a server. Rejects with [`Trouble`] where trying again would not help. */
export type Launch = () => Promise<Run>;

/** Time, for tests to hold. */
export interface Clock {
  now(): number;
  /** Calls back after so many milliseconds; what it returns takes that back. */
  after(ms: number, call: () => void): () => void;
}

export type Phase =
  | 'stopped'
  | 'starting'
  | 'running'
  /** Crashed, and about to be started again. */
  | 'waiting'
  /** Not started again before the user says so. */
  | 'gave-up';

/** A server that ran this long has not crashed at its start. */
const STEADY_MS = 60_000;

/** How many crashes in a row are followed by another start. */
const RESTARTS = 4;

/** The pause before the first of them; each is twice the one before. */
const FIRST_PAUSE_MS = 1000;

/**
 * How long a server may take to answer at its start before the user is told. A model is loaded
 * after that, so this is far more than a slow machine needs.
 */
const ANSWER_MS = 15_000;

export class Supervisor {
  #phase: Phase = 'stopped';
  #crashes = 0;
  #run: Run | undefined;
  /** Counts starts and stops, so that what belongs to an earlier one is told apart. */
  #era = 0;
  #takeBack: (() => void) | undefined;

  constructor(
    private readonly launch: Launch,
    private readonly clock: Clock,
    private readonly tell: (problem: Problem) => void,
    private readonly changed: (phase: Phase) => void,
  ) {}

  get phase(): Phase {
    return this.#phase;
  }

  /** Starts the server, unless it runs or is about to. */
  async start(): Promise<void> {
    if (this.#phase !== 'stopped') {
      return;
    }
    await this.#start();
  }

  /** Ends the server, and starts it anew, whatever became of it before. */
  async restart(): Promise<void> {
    await this.stop();
    this.#crashes = 0;
    await this.start();
  }

  /** Ends the server. */
  async stop(): Promise<void> {
    this.#era += 1;
    this.#takeBack?.();
    this.#takeBack = undefined;
    const run = this.#run;
    this.#run = undefined;
    this.#become('stopped');
    await run?.stop();
  }

  async #start(): Promise<void> {
    const era = ++this.#era;
    this.#become('starting');
    const began = this.clock.now();
    let run: Run;
    try {
      run = await this.launch();
    } catch (error) {
      if (era === this.#era) {
        this.#failed(error);
      }
      return;
    }
    if (era !== this.#era) {
      // Stopped while it was being started: nobody wants to hear how it went.
      run.ready.catch(() => undefined);
      await run.stop();
      return;
    }
    this.#run = run;
    this.#takeBack = this.clock.after(ANSWER_MS, () => {
      this.tell(silent(ANSWER_MS / 1000));
    });
    void run.ended.then((end) => {
      if (era === this.#era) {
        this.#ended(end, this.clock.now() - began);
      }
    });
    try {
      await run.ready;
    } catch {
      // Then it has ended, or is of no use and shall. `ended` tells the rest.
      await run.stop();
      return;
    }
    if (era === this.#era) {
      this.#takeBack();
      this.#takeBack = undefined;
      this.#become('running');
    }
  }

  #failed(error: unknown): void {
    this.#giveUp(
      error instanceof Trouble
        ? error.problem
        : crashed(this.#crashes + 1, error instanceof Error ? error.message : String(error)),
    );
  }

  #ended({ how, problem }: End, ranMs: number): void {
    this.#takeBack?.();
    this.#run = undefined;
    if (problem !== undefined) {
      this.#giveUp(problem);
      return;
    }
    this.#crashes = ranMs > STEADY_MS ? 1 : this.#crashes + 1;
    if (this.#crashes > RESTARTS) {
      this.#giveUp(crashed(this.#crashes, how));
      return;
    }
    this.#become('waiting');
    this.#takeBack = this.clock.after(FIRST_PAUSE_MS * 2 ** (this.#crashes - 1), () => {
      void this.#start();
    });
  }

  #giveUp(problem: Problem): void {
    this.#era += 1;
    this.#takeBack?.();
    this.#takeBack = undefined;
    this.#run = undefined;
    this.#become('gave-up');
    this.tell(problem);
  }

  #become(phase: Phase): void {
    if (phase !== this.#phase) {
      this.#phase = phase;
      this.changed(phase);
    }
  }
}
