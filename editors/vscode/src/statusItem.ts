// The item in the status bar: who answers, in what state, and why.

import * as vscode from 'vscode';

import type { Server } from './server';
import { show } from './status';

export class StatusItem implements vscode.Disposable {
  readonly #item = vscode.window.createStatusBarItem(
    'tandem.status',
    vscode.StatusBarAlignment.Right,
    100,
  );
  readonly #listening: vscode.Disposable;

  constructor(private readonly server: Server) {
    this.#item.name = 'Tandem';
    this.#listening = server.onDidChange(() => {
      this.#draw();
    });
    this.#draw();
    this.#item.show();
  }

  dispose(): void {
    this.#listening.dispose();
    this.#item.dispose();
  }

  #draw(): void {
    const { text, colour } = show(this.server.phase, this.server.status);
    this.#item.text = text;
    this.#item.backgroundColor =
      colour && new vscode.ThemeColor(`statusBarItem.${colour}Background`);
  }
}
