// Opens the log of the daemon, which holds the models for all windows.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import * as vscode from 'vscode';

import type { Server } from './server';

/** How long the program may take to say where the log is: it looks at a file and a socket. */
const LIMIT_MS = 10_000;

export async function showDaemonLog(server: Server): Promise<void> {
  const { path } = await server.program();
  const { stdout } = await promisify(execFile)(path, ['daemon', 'status', '--json'], {
    timeout: LIMIT_MS,
    windowsHide: true,
  });
  const { log } = JSON.parse(stdout) as { readonly log?: string };
  try {
    const document = await vscode.workspace.openTextDocument(log ?? '');
    await vscode.window.showTextDocument(document, { preview: true });
  } catch {
    void vscode.window.showInformationMessage(
      `Tandem: the daemon has no log${log === undefined ? '' : ` at ${log}`} yet. It begins one when it runs.`,
    );
  }
}
