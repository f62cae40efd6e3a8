// Composition: what there is, and which command does what.

import * as vscode from 'vscode';

import { act, ACTIONS } from './actions';
import { writeCommitMessage } from './commit';
import { showMenu, toggleLanguage, toggleLocalOnly } from './controls';
import { showDaemonLog } from './daemonLog';
import { doctor } from './doctor';
import { Key } from './key';
import { McpServer } from './mcp';
import { Messages } from './messages';
import { NextEdit } from './nextEdit';
import { Pages } from './pages';
import { page, type Decision } from './routes';
import { Server } from './server';
import { declaredSettings, forServer } from './settings';
import { StatusItem } from './statusItem';

const ROUTES = 'Tandem Routes';

/** What of package.json is looked at. */
type Manifest = Parameters<typeof declaredSettings>[0] & {
  readonly contributes: {
    readonly commands: readonly { readonly command: string; readonly title: string }[];
  };
};

let running: Server | undefined;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const log = vscode.window.createOutputChannel('Tandem', { log: true });
  const messages = new Messages(log);
  const key = new Key(context.secrets);
  const pages = new Pages();
  const manifest = context.extension.packageJSON as Manifest;
  const declared = declaredSettings(manifest);
  const titles = new Map(
    manifest.contributes.commands.map(({ command, title }) => [command, title]),
  );
  const settings = () =>
    forServer(declared, (name) => vscode.workspace.getConfiguration().inspect(name));
  const server = new Server({
    extension: context.extensionUri,
    log,
    key: () => key.get(),
    settings,
    tell: messages.once,
  });
  running = server;
  const mcp = new McpServer(server, key, settings);
  const nextEdit = new NextEdit(server);

  const restart = async () => {
    messages.forget();
    mcp.refresh();
    await server.restart();
  };

  const commands: Readonly<Record<string, (given: unknown) => unknown>> = {
    'tandem.menu': () => showMenu(server, key),
    'tandem.pause': () => server.pause(true),
    'tandem.resume': () => server.pause(false),
    'tandem.toggleLanguage': toggleLanguage,
    'tandem.toggleLocalOnly': toggleLocalOnly,
    'tandem.restart': restart,
    'tandem.doctor': async () => doctor(server, pages, (await key.get()) !== undefined),
    'tandem.routes': async () => {
      const decisions = await server.execute<Decision[]>('tandem.decisions');
      pages.write(
        ROUTES,
        page(decisions, (at) => at.toLocaleTimeString()),
      );
      await pages.show(ROUTES);
    },
    'tandem.showLog': () => {
      log.show();
    },
    'tandem.showDaemonLog': () => showDaemonLog(server),
    'tandem.openSettings': () =>
      vscode.commands.executeCommand(
        'workbench.action.openSettings',
        `@ext:${context.extension.id}`,
      ),
    'tandem.setApiKey': () => key.ask(),
    'tandem.removeApiKey': () => key.remove(),
    'tandem.nextEdit': () => nextEdit.go(),
    'tandem.skipNextEdit': () => nextEdit.skip(),
    'tandem.hideNextEdit': () => {
      nextEdit.hide();
    },
    'tandem.commitMessage': (given) => writeCommitMessage(server, given),
    // What an accepted suggestion runs. It is for counting, so nobody is bothered if it fails.
    'tandem.accepted': (given) =>
      server.execute('tandem.accepted', given).catch((error: unknown) => {
        log.debug(`not counted: ${String(error)}`);
      }),
    // The same of an accepted next edit.
    'tandem.acceptedEdit': (given) =>
      server.execute('tandem.acceptedEdit', given).catch((error: unknown) => {
        log.debug(`not counted: ${String(error)}`);
      }),
    ...Object.fromEntries(
      ACTIONS.map((action) => [action, (given: unknown) => act(server, action, given)]),
    ),
  };

  context.subscriptions.push(
    log,
    server,
    pages,
    mcp,
    nextEdit,
    new StatusItem(server),
    key.onDidChange(() => void restart()),
    vscode.workspace.onDidChangeConfiguration((change) => {
      if (change.affectsConfiguration('tandem.path')) {
        void restart();
      } else if (change.affectsConfiguration('tandem')) {
        mcp.refresh();
      }
    }),
    ...Object.entries(commands).map(([name, run]) =>
      vscode.commands.registerCommand(name, async (given: unknown) => {
        try {
          await run(given);
        } catch (error) {
          messages.failed(titles.get(name) ?? name, error);
        }
      }),
    ),
  );
  await server.start();
}

export async function deactivate(): Promise<void> {
  await running?.stop();
}
