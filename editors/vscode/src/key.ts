// The user's key for Claude: kept in VS Code's secret storage, given to processes by their
// environment alone, and never logged.

import * as vscode from 'vscode';

const NAME = 'anthropic-api-key';

export class Key {
  constructor(private readonly secrets: vscode.SecretStorage) {}

  get(): Promise<string | undefined> {
    return Promise.resolve(this.secrets.get(NAME));
  }

  /** Calls back when the key is another, in whichever window that was said. */
  onDidChange(call: () => void): vscode.Disposable {
    return this.secrets.onDidChange(({ key }) => {
      if (key === NAME) {
        call();
      }
    });
  }

  /** Asks the user for a key and keeps it. */
  async ask(): Promise<void> {
    const said = await vscode.window.showInputBox({
      title: 'Claude API key',
      prompt: 'It is kept in VS Code’s secret storage and given to Tandem’s own processes alone.',
      placeHolder: 'sk-ant-…',
      password: true,
      ignoreFocusOut: true,
      validateInput: complaint,
    });
    const key = said?.trim();
    if (key !== undefined && key !== '') {
      await this.secrets.store(NAME, key);
    }
  }

  /** Forgets the key. */
  async remove(): Promise<void> {
    if ((await this.get()) === undefined) {
      void vscode.window.showInformationMessage(
        'Tandem: no key is kept here. One from the environment or from your configuration file is not VS Code’s to remove.',
      );
      return;
    }
    await this.secrets.delete(NAME);
  }
}

/** What is wrong with a key; nothing is said of its form, which is Anthropic's to choose. */
function complaint(key: string): string | undefined {
  const trimmed = key.trim();
  if (trimmed === '') {
    return 'Paste the key, or press Escape.';
  }
  // An HTTP header can hold nothing else.
  return /^[\x21-\x7e]+$/.test(trimmed)
    ? undefined
    : 'A key has no blanks and no letters beyond ASCII.';
}
