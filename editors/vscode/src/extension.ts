// Composition: what there is, and what is started when.

import * as vscode from 'vscode';

import { STEP_TITLES, type Problem, type Step } from './problem';
import { Server } from './server';
import { StatusItem } from './statusItem';

let server: Server | undefined;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const log = vscode.window.createOutputChannel('Tandem', { log: true });
  const told = new Set<string>();

  const steps: Readonly<Record<Step, () => unknown>> = {
    settings: () => vscode.commands.executeCommand('workbench.action.openSettings', 'tandem.path'),
    log: () => {
      log.show();
    },
    restart: () => vscode.commands.executeCommand('tandem.restart'),
  };

  const tell = (problem: Problem) => {
    log[problem.severity === 'error' ? 'error' : 'warn'](problem.message);
    if (told.has(problem.key)) {
      return;
    }
    told.add(problem.key);
    const show =
      problem.severity === 'error'
        ? vscode.window.showErrorMessage
        : vscode.window.showWarningMessage;
    const buttons = problem.steps.map((step) => ({ title: STEP_TITLES[step], step }));
    void show(`Tandem: ${problem.message}`, ...buttons).then(
      (button) => button && steps[button.step](),
    );
  };

  const here = new Server({
    extension: context.extensionUri,
    log,
    key: () => Promise.resolve(undefined),
    settings: () => null,
    tell,
  });
  server = here;

  context.subscriptions.push(
    log,
    here,
    new StatusItem(here),
    vscode.commands.registerCommand('tandem.accepted', (...args: unknown[]) =>
      here.execute('tandem.accepted', ...args),
    ),
    vscode.commands.registerCommand('tandem.restart', () => {
      told.clear();
      return here.restart();
    }),
  );
  await here.start();
}

export async function deactivate(): Promise<void> {
  await server?.stop();
}
