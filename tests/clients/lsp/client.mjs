// Drives `tandem lsp` with Microsoft's own client library, the one beneath VS Code.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';

import * as lsp from 'vscode-languageserver-protocol/node';

const SOURCE = `def mean(values):
    total = sum(values)
    return total / len(values)


def variance(values):
    centre = mean(values)
    return 
`;
const CURSOR = { line: 7, character: 11 };

const APPLY_EDIT = lsp.ApplyWorkspaceEditRequest.type;
const STATUS = new lsp.NotificationType('tandem/status');

/** Starts the server that stands in for Claude; `environment` makes Tandem ask only that one. */
async function startStandIn() {
  const server = spawn(process.env.CLAUDE_STAND_IN, [], { stdio: ['ignore', 'pipe', 'inherit'] });
  for await (const line of createInterface({ input: server.stdout })) {
    const environment = {
      ANTHROPIC_API_KEY: 'sk-ant-stand-in',
      ANTHROPIC_BASE_URL: line.match(/http:\/\/\S+/)[0],
      TANDEM_MODE: 'claude-only',
    };
    return { environment, stop: () => server.kill() };
  }
  throw new Error('the server that stands in for Claude says nothing');
}

/** Runs `body` with an editor that has shaken hands and has one document open. */
async function withEditor(body, environment = {}) {
  const home = mkdtempSync(join(tmpdir(), 'tandem-client-'));
  const file = join(home, 'statistics.py');
  writeFileSync(file, SOURCE);
  const server = spawn(process.env.TANDEM_BIN, ['lsp'], {
    env: { PATH: process.env.PATH, HOME: home, TANDEM_DAEMON_ENABLED: 'false', ...environment },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(server, 'exit');
  const connection = lsp.createProtocolConnection(
    new lsp.StreamMessageReader(server.stdout),
    new lsp.StreamMessageWriter(server.stdin),
  );
  try {
    const editor = { connection, uri: pathToFileURL(file).href, statuses: [], edits: [] };
    connection.onNotification(STATUS, (status) => editor.statuses.push(status));
    connection.onRequest(lsp.ConfigurationRequest.type, ({ items }) => items.map(() => null));
    connection.onRequest(lsp.WorkDoneProgressCreateRequest.type, () => {});
    connection.onRequest(lsp.RegistrationRequest.type, () => {});
    connection.onRequest(APPLY_EDIT, ({ edit }) => {
      editor.edits.push(edit);
      return { applied: true };
    });
    connection.listen();
    editor.server = await connection.sendRequest(lsp.InitializeRequest.type, {
      processId: process.pid,
      rootUri: pathToFileURL(home).href,
      workspaceFolders: [{ uri: pathToFileURL(home).href, name: 'home' }],
      capabilities: {
        general: { positionEncodings: ['utf-16'] },
        textDocument: { inlineCompletion: {}, synchronization: {} },
        window: { workDoneProgress: true },
        workspace: { applyEdit: true, configuration: true },
      },
    });
    await connection.sendNotification(lsp.InitializedNotification.type, {});
    await connection.sendNotification(lsp.DidOpenTextDocumentNotification.type, {
      textDocument: { uri: editor.uri, languageId: 'python', version: 1, text: SOURCE },
    });
    await body(editor);
    await connection.sendRequest(lsp.ShutdownRequest.type);
    await connection.sendNotification(lsp.ExitNotification.type);
    const [code] = await ended;
    assert.equal(code, 0, 'exit after shutdown');
  } finally {
    connection.dispose();
    server.kill();
    await ended;
    rmSync(home, { recursive: true, force: true });
  }
}

function inlineCompletion(editor, position, triggerKind) {
  const textDocument = { uri: editor.uri };
  return editor.connection.sendRequest(lsp.InlineCompletionRequest.type, {
    textDocument,
    position,
    context: { triggerKind },
  });
}

test('inline completion, automatic and invoked', async () => {
  const claude = await startStandIn();
  claude.environment.TANDEM_CLAUDE_AUTOMATIC_COMPLETIONS = 'true';
  try {
    await withEditor(async (editor) => {
      assert.ok(editor.server.capabilities.inlineCompletionProvider);
      assert.equal(editor.server.capabilities.positionEncoding, 'utf-16');
      for (const [trigger, most] of [
        [lsp.InlineCompletionTriggerKind.Automatic, 1],
        [lsp.InlineCompletionTriggerKind.Invoked, 3],
      ]) {
        const result = await inlineCompletion(editor, CURSOR, trigger);
        const items = result?.items ?? result ?? [];
        assert.ok(items.length >= 1 && items.length <= most, JSON.stringify(result));
        for (const item of items) {
          const typed = SOURCE.split('\n')[CURSOR.line].slice(item.range.start.character);
          assert.equal(item.range.start.line, CURSOR.line);
          assert.ok(item.insertText.startsWith(typed), JSON.stringify(item));
          assert.ok(item.insertText.includes('stand-in for Claude'), JSON.stringify(item));
        }
      }
      assert.ok(
        editor.statuses.some(({ reason }) => reason === 'mode-claude-only'),
        'the status says who answered, and why',
      );
    }, claude.environment);
  } finally {
    claude.stop();
  }
});

test('the model inside the program answers, or says why it does not', async () => {
  await withEditor(async (editor) => {
    const result = await inlineCompletion(editor, CURSOR, lsp.InlineCompletionTriggerKind.Invoked);
    const status = editor.statuses.at(-1);
    assert.equal(status.model, 'tandem-mini');
    assert.ok(result.items.length > 0 || status.emptyReason, JSON.stringify(status));
  });
});

test('changes count in UTF-16 units', async () => {
  const claude = await startStandIn();
  try {
    await withEditor(async (editor) => {
      // Both characters beyond ASCII move the columns: by one unit, and by two.
      const typed = '"é🦀" + str(';
      await editor.connection.sendNotification(lsp.DidChangeTextDocumentNotification.type, {
        textDocument: { uri: editor.uri, version: 2 },
        contentChanges: [{ range: { start: CURSOR, end: CURSOR }, text: typed }],
      });
      const position = { line: CURSOR.line, character: CURSOR.character + typed.length };
      const result = await inlineCompletion(
        editor,
        position,
        lsp.InlineCompletionTriggerKind.Invoked,
      );
      const items = result?.items ?? result ?? [];
      assert.ok(items.length >= 1, JSON.stringify(result));
      const line = SOURCE.split('\n')[CURSOR.line] + typed;
      for (const item of items) {
        const replaced = line.slice(item.range.start.character, item.range.end.character);
        assert.ok(item.insertText.startsWith(replaced), JSON.stringify(item));
        assert.equal(item.range.end.character, position.character);
      }
    }, claude.environment);
  } finally {
    claude.stop();
  }
});

test('a cancelled request gets its one reply', async () => {
  const claude = await startStandIn();
  try {
    await withEditor(async (editor) => {
      // The stand-in answers such a document with the start of a stream, and then nothing.
      const start = { line: CURSOR.line, character: 0 };
      await editor.connection.sendNotification(lsp.DidChangeTextDocumentNotification.type, {
        textDocument: { uri: editor.uri, version: 2 },
        contentChanges: [{ range: { start, end: start }, text: '    # [stand-in: hang]\n' }],
      });
      const source = new lsp.CancellationTokenSource();
      const pending = editor.connection.sendRequest(
        lsp.InlineCompletionRequest.type,
        {
          textDocument: { uri: editor.uri },
          position: { line: CURSOR.line + 1, character: CURSOR.character },
          context: { triggerKind: lsp.InlineCompletionTriggerKind.Invoked },
        },
        source.token,
      );
      setTimeout(() => source.cancel(), 300);
      await assert.rejects(pending, { code: lsp.LSPErrorCodes.RequestCancelled });
    }, claude.environment);
  } finally {
    claude.stop();
  }
});
