// Messages to the user: each problem once until a restart, each with buttons for the next step.

import * as vscode from 'vscode';

import { STEP_TITLES, Trouble, type Problem, type Step } from './problem';

export class Messages {
  readonly #told = new Set<string>();

  constructor(private readonly log: vscode.LogOutputChannel) {}

  /** Tells of a problem, unless it was told of already. */
  readonly once = (problem: Problem): void => {
    const told = this.#told.has(problem.key);
    this.#told.add(problem.key);
    if (told) {
      this.log.info(`told before: ${problem.message}`);
    } else {
      this.now(problem);
    }
  };

  /** Tells of a problem: the answer to something that the user did. */
  now(problem: Omit<Problem, 'key'>): void {
    const { severity, message, steps } = problem;
    this.log[severity === 'error' ? 'error' : 'warn'](message);
    const show =
      severity === 'error' ? vscode.window.showErrorMessage : vscode.window.showWarningMessage;
    const buttons = steps.map((step) => ({ title: STEP_TITLES[step], step }));
    void show(`Tandem: ${message}`, ...buttons).then((button) => {
      if (button !== undefined) {
        void this.#take(button.step);
      }
    });
  }

  /** Tells what kept a command of the user's from being done. */
  failed(what: string, error: unknown): void {
    if (error instanceof Trouble) {
      this.now(error.problem);
      return;
    }
    const why = error instanceof Error ? error.message : String(error);
    this.now({
      severity: 'warning',
      message: `${what} failed: ${why}. Look at the log, or restart Tandem.`,
      steps: ['log', 'restart'],
    });
  }

  /** Forgets what was told. */
  forget(): void {
    this.#told.clear();
  }

  async #take(step: Step): Promise<void> {
    switch (step) {
      case 'settings':
        await vscode.commands.executeCommand('workbench.action.openSettings', 'tandem.path');
        break;
      case 'log':
        this.log.show();
        break;
      case 'restart':
        await vscode.commands.executeCommand('tandem.restart');
        break;
    }
  }
}
