// What of the API of VS Code's own Git extension is used here (its version 1).

import * as vscode from 'vscode';

interface GitExtension {
  readonly enabled: boolean;
  getAPI(version: 1): GitApi;
}

interface GitApi {
  readonly repositories: readonly Repository[];
  getRepository(uri: vscode.Uri): Repository | null;
}

export interface Repository {
  readonly rootUri: vscode.Uri;
  readonly inputBox: { value: string };
  readonly state: {
    readonly indexChanges: readonly Change[];
    readonly workingTreeChanges: readonly Change[];
  };
  /** The diff of what is staged, or of the working tree. */
  diff(cached?: boolean): Promise<string>;
}

interface Change {
  readonly uri: vscode.Uri;
  readonly originalUri: vscode.Uri;
  readonly renameUri: vscode.Uri | undefined;
}

/** The repositories that are open; none where VS Code's Git is switched off. */
export async function git(): Promise<GitApi | undefined> {
  const extension = vscode.extensions.getExtension<GitExtension>('vscode.git');
  const exported = await extension?.activate();
  return exported?.enabled === true ? exported.getAPI(1) : undefined;
}

/** The files that changes touch, by their old and new names. */
export function filesOf(changes: readonly Change[]): string[] {
  const uris = changes.flatMap(({ uri, originalUri, renameUri }) => [
    uri,
    originalUri,
    ...(renameUri === undefined ? [] : [renameUri]),
  ]);
  return [...new Set(uris.map(String))];
}
