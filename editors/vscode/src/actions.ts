// The commands that work on the text at the cursor. From a code action each comes with what it is
// about, from the palette without.

import * as vscode from 'vscode';

import type { Server } from './server';

/** What an action is about, as the server wants it. */
interface Target {
  readonly uri: string;
  readonly range: Range;
  readonly version?: number;
  readonly diagnostic?: string;
  readonly instruction?: string;
}

interface Range {
  readonly start: Position;
  readonly end: Position;
}

interface Position {
  readonly line: number;
  readonly character: number;
}

/** The server's commands that take a target. */
export const ACTIONS = [
  'tandem.explain',
  'tandem.fix',
  'tandem.document',
  'tandem.test',
  'tandem.rewrite',
] as const;

export type Action = (typeof ACTIONS)[number];

/** Does an action. What goes wrong in the server it tells the user itself. */
export async function act(server: Server, action: Action, given: unknown): Promise<void> {
  let target = isTarget(given) ? given : atCursor();
  if (target === undefined) {
    void vscode.window.showInformationMessage(
      'Tandem: there is no text at hand to work on. Open a file of this machine, or a new one.',
    );
    return;
  }
  if (action === 'tandem.fix' && target.diagnostic === undefined) {
    target = await withDiagnostic(target);
  }
  if (action === 'tandem.rewrite' && target.instruction === undefined) {
    const instruction = await vscode.window.showInputBox({
      title: 'Rewrite with Tandem',
      prompt: 'How should it be rewritten?',
      placeHolder: 'as one function that takes a list',
    });
    if (instruction === undefined || instruction.trim() === '') {
      return;
    }
    target = { ...target, instruction };
  }
  await server.execute(action, target);
}

function isTarget(given: unknown): given is Target {
  return typeof given === 'object' && given !== null && 'uri' in given && 'range' in given;
}

function atCursor(): Target | undefined {
  const editor = vscode.window.activeTextEditor;
  if (editor === undefined || !['file', 'untitled'].includes(editor.document.uri.scheme)) {
    return undefined;
  }
  const { document, selection } = editor;
  return {
    uri: document.uri.toString(),
    range: { start: position(selection.start), end: position(selection.end) },
    version: document.version,
  };
}

/** Adds the problem at the cursor; where there are several, the user picks one. */
async function withDiagnostic(target: Target): Promise<Target> {
  const { start, end } = target.range;
  const range = new vscode.Range(start.line, start.character, end.line, end.character);
  const here = vscode.languages
    .getDiagnostics(vscode.Uri.parse(target.uri, true))
    .filter((diagnostic) => diagnostic.range.intersection(range) !== undefined);
  if (here.length === 0) {
    return target;
  }
  const picked =
    here.length === 1
      ? here[0]
      : (
          await vscode.window.showQuickPick(
            here.map((diagnostic) => ({ label: diagnostic.message, diagnostic })),
            { title: 'Fix which problem?' },
          )
        )?.diagnostic;
  if (picked === undefined) {
    return target;
  }
  return {
    ...target,
    range: { start: position(picked.range.start), end: position(picked.range.end) },
    diagnostic: picked.message,
  };
}

function position({ line, character }: vscode.Position): Position {
  return { line, character };
}
