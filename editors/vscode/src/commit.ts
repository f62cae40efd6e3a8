// Writes a commit message into the source-control input box.

import * as vscode from 'vscode';

import { filesOf, git, type Repository } from './git';
import type { Server } from './server';

/** What the server answers. */
interface Answer {
  /** Absent if there is none; the user was told why. */
  readonly text?: string;
}

/**
 * Describes what is staged, or all changes where nothing is.
 *
 * @param given The source control whose button was pressed, if one was.
 */
export async function writeCommitMessage(server: Server, given: unknown): Promise<void> {
  const repository = await repositoryOf(given);
  if (repository === undefined) {
    return;
  }
  const { indexChanges, workingTreeChanges } = repository.state;
  const staged = indexChanges.length > 0;
  const change = {
    diff: await repository.diff(staged),
    files: filesOf(staged ? indexChanges : workingTreeChanges),
  };
  const before = repository.inputBox.value;
  const { text } = await vscode.window.withProgress(
    { location: vscode.ProgressLocation.SourceControl },
    () => server.execute<Answer>('tandem.commitMessage', change),
  );
  if (text === undefined) {
    return;
  }
  // What was typed meanwhile is the user's.
  if (repository.inputBox.value === before) {
    repository.inputBox.value = text;
    return;
  }
  const replace = 'Replace it';
  const answer = await vscode.window.showInformationMessage(
    'Tandem: you have typed a commit message in the meantime.',
    replace,
  );
  if (answer === replace) {
    repository.inputBox.value = text;
  }
}

async function repositoryOf(given: unknown): Promise<Repository | undefined> {
  const api = await git();
  if (api === undefined || api.repositories.length === 0) {
    void vscode.window.showInformationMessage(
      'Tandem: there is no Git repository here. Open a folder that is one, and see that "git.enabled" is on.',
    );
    return undefined;
  }
  const { repositories } = api;
  const root = rootOf(given) ?? vscode.window.activeTextEditor?.document.uri;
  const here = root === undefined ? null : api.getRepository(root);
  if (here !== null || repositories.length === 1) {
    return here ?? repositories[0];
  }
  const picked = await vscode.window.showQuickPick(
    repositories.map((repository) => ({ label: repository.rootUri.fsPath, repository })),
    { title: 'A commit message for which repository?' },
  );
  return picked?.repository;
}

function rootOf(given: unknown): vscode.Uri | undefined {
  return typeof given === 'object' &&
    given !== null &&
    'rootUri' in given &&
    given.rootUri instanceof vscode.Uri
    ? given.rootUri
    : undefined;
}
