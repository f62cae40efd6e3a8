// The item in the status bar: who answers, in what state, and why.

import * as vscode from 'vscode';

import { languageOff } from './controls';
import type { Server } from './server';
import { describe, show } from './status';

export class StatusItem implements vscode.Disposable {
  readonly #item = vscode.window.createStatusBarItem(
    'tandem.status',
    vscode.StatusBarAlignment.Right,
    100,
  );
  readonly #listening: vscode.Disposable;

  constructor(private readonly server: Server) {
    this.#item.name = 'Tandem';
    this.#item.command = 'tandem.menu';
    const draw = () => {
      this.#draw();
    };
    this.#listening = vscode.Disposable.from(
      server.onDidChange(draw),
      vscode.window.onDidChangeActiveTextEditor(draw),
      vscode.workspace.onDidChangeConfiguration(draw),
    );
    this.#draw();
    this.#item.show();
  }

  dispose(): void {
    this.#listening.dispose();
    this.#item.dispose();
  }

  #draw(): void {
    const { phase, status } = this.server;
    const { text, colour } = show(phase, status, languageOff());
    this.#item.text = text;
    this.#item.backgroundColor =
      colour && new vscode.ThemeColor(`statusBarItem.${colour}Background`);
    const tooltip = new vscode.MarkdownString('**Tandem**\n\n');
    const told = describe(phase, status);
    this.#item.accessibilityInformation = {
      label: ['Tandem', ...told.map(({ name, text }) => (name ? `${name}: ${text}` : text))].join(
        '. ',
      ),
      role: 'button',
    };
    for (const { name, text } of told) {
      if (name !== undefined) {
        tooltip.appendMarkdown(`${name}: `);
      }
      // A model's name or an error may hold anything.
      tooltip.appendText(text).appendMarkdown('\n\n');
    }
    this.#item.tooltip = tooltip;
  }
}
