// Runs `tandem doctor` and shows what it finds, as it finds it.

import { spawn } from 'node:child_process';

import * as vscode from 'vscode';

import type { Pages } from './pages';
import { ending, endWithin } from './process';
import type { Server } from './server';

const PAGE = 'Tandem Doctor';

/** How long a cancelled doctor may take to end before it is killed. */
const STOP_MS = 1000;

export async function doctor(server: Server, pages: Pages, hasKey: boolean): Promise<void> {
  const program = await server.program();
  // It is no server, so it does not get the key; then its word about Claude is not the last.
  const note = hasKey
    ? 'The key that VS Code keeps is given to the server alone: Claude is tried here without it.\n\n'
    : '';
  let text = `${note}${program.path}, version ${program.version}, tries every backend…\n\n`;
  pages.write(PAGE, text);
  await pages.show(PAGE);
  const add = (more: string) => {
    text += more;
    pages.write(PAGE, text);
  };
  await vscode.window.withProgress(
    {
      location: vscode.ProgressLocation.Notification,
      title: 'Tandem doctor tries every backend',
      cancellable: true,
    },
    async (_, token) => {
      const child = spawn(program.path, ['doctor'], {
        cwd: server.folder(),
        env: { ...process.env, NO_COLOR: '1' },
        stdio: ['ignore', 'pipe', 'pipe'],
        windowsHide: true,
      });
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding('utf8').on('data', add);
      }
      token.onCancellationRequested(() => {
        child.kill();
        void endWithin(child, STOP_MS);
      });
      await new Promise<void>((resolve) => {
        child.once('error', ({ message }) => {
          add(`\nIt cannot be run: ${message}. Check "tandem.path".\n`);
          resolve();
        });
        child.once('close', (code, signal) => {
          // 1 says that something it tried does not work, and what.
          if (token.isCancellationRequested) {
            add('\nCancelled.\n');
          } else if (code !== 0 && code !== 1) {
            add(`\nIt ended by ${ending(code, signal)}.\n`);
          }
          resolve();
        });
      });
    },
  );
}
