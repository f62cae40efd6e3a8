// What the user switches: this window, a language, whether anything may leave the machine.

import * as vscode from 'vscode';

import { entries, title, type Entry, type Situation } from './menu';
import type { Key } from './key';
import type { Server } from './server';
import type { Report } from './status';

const LANGUAGES = 'completion.languages_off';
const EVERYWHERE = vscode.ConfigurationTarget.Global;
const HERE = vscode.ConfigurationTarget.Workspace;

function configuration(): vscode.WorkspaceConfiguration {
  return vscode.workspace.getConfiguration('tandem');
}

/** Switches the language of the document at hand off, or on again. */
export async function toggleLanguage(): Promise<void> {
  const language = vscode.window.activeTextEditor?.document.languageId;
  if (language === undefined) {
    void vscode.window.showInformationMessage(
      'Tandem: no document is at hand. Open one of the language to be paused.',
    );
    return;
  }
  const { global, workspace } = languagesOff();
  if (!global.includes(language) && !workspace.includes(language)) {
    await configuration().update(LANGUAGES, [...global, language], EVERYWHERE);
    return;
  }
  for (const [list, target] of [
    [global, EVERYWHERE],
    [workspace, HERE],
  ] as const) {
    if (list.includes(language)) {
      const rest = list.filter((other) => other !== language);
      await configuration().update(LANGUAGES, rest.length === 0 ? undefined : rest, target);
    }
  }
}

/** The language of the document at hand, if it is switched off in VS Code's settings. */
export function languageOff(): string | undefined {
  const language = vscode.window.activeTextEditor?.document.languageId;
  const { global, workspace } = languagesOff();
  return [...global, ...workspace].find((off) => off === language);
}

/** Keeps everything on this machine, or lets the user's own file decide again. */
export async function toggleLocalOnly(): Promise<void> {
  const next = localOnlySetting() ? undefined : 'local-only';
  await configuration().update('mode', next, EVERYWHERE);
}

/** Shows the menu of the status item, and does what is picked. */
export async function showMenu(server: Server, key: Key): Promise<void> {
  const [mode, hasKey] = await Promise.all([modeInForce(server), key.get()]);
  const language = vscode.window.activeTextEditor?.document.languageId;
  const situation: Situation = {
    phase: server.phase,
    status: server.status,
    paused: server.paused,
    language:
      language === undefined ? undefined : { id: language, paused: languageOff() !== undefined },
    mode,
    localOnlySetting: localOnlySetting(),
    hasKey: hasKey !== undefined,
  };
  const picked = await vscode.window.showQuickPick(entries(situation).map(item), {
    title: title(situation),
    placeHolder: server.status?.message ?? 'What should Tandem do?',
  });
  if (picked?.command !== undefined) {
    await vscode.commands.executeCommand(picked.command);
  }
}

function item(entry: Entry): Entry & vscode.QuickPickItem {
  return entry.separator === true
    ? { ...entry, kind: vscode.QuickPickItemKind.Separator }
    : { ...entry };
}

/** The mode that the server goes by, if it says. */
async function modeInForce(server: Server): Promise<string | undefined> {
  try {
    return (await server.execute<Report>('tandem.status')).mode;
  } catch {
    // The menu tells that the server does not run.
    return undefined;
  }
}

function languagesOff(): { global: readonly string[]; workspace: readonly string[] } {
  const levels = configuration().inspect<string[]>(LANGUAGES);
  return { global: levels?.globalValue ?? [], workspace: levels?.workspaceValue ?? [] };
}

function localOnlySetting(): boolean {
  return configuration().inspect('mode')?.globalValue === 'local-only';
}
