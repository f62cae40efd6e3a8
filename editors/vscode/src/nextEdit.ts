// The next edit: found and shown where it is, then made, one after another.

import * as vscode from 'vscode';

import type { Server } from './server';

/** What the server answers. */
interface InlineEditList {
  readonly edits: readonly InlineEdit[];
  readonly emptyReason?: string;
}

interface InlineEdit {
  readonly text: string;
  readonly range: { readonly start: Position; readonly end: Position };
  /** Run after the edit. */
  readonly command: { readonly command: string; readonly arguments?: readonly unknown[] };
}

interface Position {
  readonly line: number;
  readonly character: number;
}

/** An edit that is shown, and what it is about. */
interface Shown {
  readonly editor: vscode.TextEditor;
  readonly version: number;
  readonly range: vscode.Range;
  readonly edit: InlineEdit;
}

/** In package.json, for the keys. */
const CONTEXT = 'tandem.nextEditShown';

/** Why there is none, by the server's word for it. */
const REASONS: Readonly<Record<string, string>> = {
  disabled: 'next edits are switched off, by the setting tandem.completion.next_edit.',
  paused: 'it is paused in this window. "Tandem: Resume in This Window" ends that.',
  'language-off':
    'it is switched off in this language, by the setting tandem.completion.languages_off.',
  'path-off': 'it is switched off in this file, by the setting tandem.completion.paths_off.',
  'document-unavailable': 'this file is too large, or not one that Tandem helps with.',
};

export class NextEdit implements vscode.Disposable {
  readonly #taken = vscode.window.createTextEditorDecorationType({
    backgroundColor: new vscode.ThemeColor('diffEditor.removedTextBackground'),
  });
  readonly #put = vscode.window.createTextEditorDecorationType({});
  readonly #subscriptions: readonly vscode.Disposable[];
  #shown: Shown | undefined;

  constructor(private readonly server: Server) {
    this.#subscriptions = [
      vscode.workspace.onDidChangeTextDocument(({ document, contentChanges }) => {
        if (contentChanges.length > 0 && document === this.#shown?.editor.document) {
          this.hide();
        }
      }),
      vscode.window.onDidChangeActiveTextEditor(() => {
        this.hide();
      }),
    ];
  }

  dispose(): void {
    this.hide();
    for (const subscription of [...this.#subscriptions, this.#taken, this.#put]) {
      subscription.dispose();
    }
  }

  /** Shows the next edit and goes there; makes it where it is shown, and shows the one after it. */
  async go(): Promise<void> {
    const shown = this.#shown;
    if (shown === undefined) {
      await this.#ask(false);
    } else if (shown.editor.selection.active.line !== shown.range.start.line) {
      goTo(shown);
    } else {
      await this.#make(shown);
    }
  }

  /** Says that what is shown is not wanted, and shows what else there is. */
  async skip(): Promise<void> {
    const shown = this.#shown;
    if (shown === undefined) {
      return;
    }
    this.hide();
    await this.server.execute('tandem.rejectedEdit', ...(shown.edit.command.arguments ?? []));
    await this.#ask(true);
  }

  /** Takes back what is shown. It is proposed again when asked for. */
  hide(): void {
    if (this.#shown === undefined) {
      return;
    }
    const { editor } = this.#shown;
    this.#shown = undefined;
    editor.setDecorations(this.#taken, []);
    editor.setDecorations(this.#put, []);
    void vscode.commands.executeCommand('setContext', CONTEXT, false);
  }

  async #ask(quiet: boolean): Promise<void> {
    const editor = vscode.window.activeTextEditor;
    if (editor === undefined) {
      void vscode.window.showInformationMessage('Tandem: open a file to edit first.');
      return;
    }
    const { document, selection } = editor;
    const { version } = document;
    const { line, character } = selection.active;
    const list = await this.server.request<InlineEditList>('tandem/inlineEdit', {
      textDocument: { uri: document.uri.toString(), version },
      position: { line, character },
    });
    if (vscode.window.activeTextEditor !== editor || document.version !== version) {
      return;
    }
    const [edit] = list.edits;
    if (edit !== undefined) {
      this.#show(editor, edit);
    } else if (!quiet) {
      const reason = REASONS[list.emptyReason ?? ''] ?? 'no next edit is likely here.';
      void vscode.window.showInformationMessage(`Tandem: ${reason}`);
    }
  }

  #show(editor: vscode.TextEditor, edit: InlineEdit): void {
    const { start, end } = edit.range;
    const range = new vscode.Range(start.line, start.character, end.line, end.character);
    const shown = { editor, version: editor.document.version, range, edit };
    this.#shown = shown;
    editor.setDecorations(this.#taken, [range]);
    editor.setDecorations(this.#put, [
      {
        range: new vscode.Range(range.end, range.end),
        renderOptions: {
          after: {
            contentText: edit.text.replaceAll(/\r?\n/g, '⏎'),
            backgroundColor: new vscode.ThemeColor('diffEditor.insertedTextBackground'),
          },
        },
      },
    ]);
    void vscode.commands.executeCommand('setContext', CONTEXT, true);
    goTo(shown);
  }

  async #make({ editor, version, range, edit }: Shown): Promise<void> {
    this.hide();
    if (editor.document.version !== version) {
      return;
    }
    const made = await editor.edit((changes) => {
      changes.replace(range, edit.text);
    });
    if (!made) {
      void vscode.window.showWarningMessage(
        'Tandem: VS Code did not make the edit. Check that the file can be written to.',
      );
      return;
    }
    await this.server.execute(edit.command.command, ...(edit.command.arguments ?? []));
    await this.#ask(true);
  }
}

function goTo({ editor, range }: Shown): void {
  editor.selection = new vscode.Selection(range.start, range.start);
  editor.revealRange(range, vscode.TextEditorRevealType.InCenterIfOutsideViewport);
}
