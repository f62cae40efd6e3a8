// Tandem's MCP server, for VS Code's own MCP support: the same program, started by VS Code.

import * as vscode from 'vscode';

import type { Key } from './key';
import { withKey } from './process';
import type { Server } from './server';

/** VS Code takes an answer at once; this is for a busy machine. */
const OFFER_AGAIN_MS = 500;

export class McpServer
  implements vscode.Disposable, vscode.McpServerDefinitionProvider<vscode.McpStdioServerDefinition>
{
  readonly #changed = new vscode.EventEmitter<void>();
  #withdrawn = false;
  readonly onDidChangeMcpServerDefinitions = this.#changed.event;
  readonly #registered: vscode.Disposable;

  constructor(
    private readonly server: Server,
    private readonly key: Key,
    private readonly settings: () => Readonly<Record<string, unknown>>,
  ) {
    // When all is there: VS Code asks at once.
    this.#registered = vscode.lm.registerMcpServerDefinitionProvider('tandem', this);
  }

  dispose(): void {
    this.#registered.dispose();
    this.#changed.dispose();
  }

  /**
   * Has VS Code ask again: the program, the key or the settings are others. A server that runs goes
   * by the old ones, and VS Code ends it only when it is offered no more; so for a moment it is not.
   */
  refresh(): void {
    this.#withdrawn = true;
    this.#changed.fire();
  }

  async provideMcpServerDefinitions(): Promise<vscode.McpStdioServerDefinition[]> {
    if (this.#withdrawn) {
      this.#withdrawn = false;
      // When VS Code has taken this answer.
      setTimeout(() => {
        this.#changed.fire();
      }, OFFER_AGAIN_MS);
      return [];
    }
    try {
      const { path, version } = await this.server.program();
      // What the user says here holds for this server, too: above all that nothing leaves the machine.
      const args = ['mcp', '--editor-settings', JSON.stringify(this.settings())];
      const definition = new vscode.McpStdioServerDefinition('Tandem', path, args, {}, version);
      const folder = this.server.folder();
      if (folder !== undefined) {
        definition.cwd = vscode.Uri.file(folder);
      }
      return [definition];
    } catch {
      // The user is told of a program that is missing when the language server is started.
      return [];
    }
  }

  /** Called when the server is about to be started; only then is the key looked at. */
  async resolveMcpServerDefinition(
    definition: vscode.McpStdioServerDefinition,
  ): Promise<vscode.McpStdioServerDefinition> {
    definition.env = { ...withKey({}, await this.key.get()) } as Record<string, string>;
    return definition;
  }
}
