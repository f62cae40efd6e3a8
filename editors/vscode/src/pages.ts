// Pages that the extension shows in an editor and that are in no file: the doctor's report, routes.

import * as vscode from 'vscode';

/** Documents of this scheme are not helped with. */
const SCHEME = 'tandem';

export class Pages implements vscode.Disposable, vscode.TextDocumentContentProvider {
  readonly #texts = new Map<string, string>();
  readonly #changed = new vscode.EventEmitter<vscode.Uri>();
  readonly onDidChange = this.#changed.event;
  // The last field: VS Code looks for the event when the provider is registered.
  readonly #registered = vscode.workspace.registerTextDocumentContentProvider(SCHEME, this);

  dispose(): void {
    this.#registered.dispose();
    this.#changed.dispose();
  }

  provideTextDocumentContent(uri: vscode.Uri): string {
    return this.#texts.get(uri.path) ?? '';
  }

  /** Puts a text on a page. */
  write(name: string, text: string): void {
    const uri = address(name);
    this.#texts.set(uri.path, text);
    this.#changed.fire(uri);
  }

  /** Shows a page. */
  async show(name: string): Promise<void> {
    const document = await vscode.workspace.openTextDocument(address(name));
    await vscode.window.showTextDocument(document, { preview: true });
  }
}

function address(name: string): vscode.Uri {
  return vscode.Uri.from({ scheme: SCHEME, path: `/${name}` });
}
