// An editor made of Microsoft's client library: opens a file, prints one completion as a line of
// JSON, and stays until its standard input ends.
//
//   node client.mjs TANDEM FILE LINE COLUMN

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

import * as lsp from 'vscode-languageserver-protocol/node';

const [tandem, file, line, character] = process.argv.slice(2);
const server = spawn(tandem, ['lsp'], { stdio: ['pipe', 'pipe', 'inherit'] });
const ended = once(server, 'exit');
const connection = lsp.createProtocolConnection(
  new lsp.StreamMessageReader(server.stdout),
  new lsp.StreamMessageWriter(server.stdin),
);
connection.listen();
await connection.sendRequest(lsp.InitializeRequest.type, {
  processId: process.pid,
  rootUri: null,
  capabilities: { textDocument: { inlineCompletion: {} } },
});
await connection.sendNotification(lsp.InitializedNotification.type, {});
const uri = pathToFileURL(file).href;
await connection.sendNotification(lsp.DidOpenTextDocumentNotification.type, {
  textDocument: { uri, languageId: 'python', version: 1, text: readFileSync(file, 'utf8') },
});
const result = await connection.sendRequest(lsp.InlineCompletionRequest.type, {
  textDocument: { uri },
  position: { line: Number(line), character: Number(character) },
  context: { triggerKind: lsp.InlineCompletionTriggerKind.Invoked },
});
process.stdout.write(`${JSON.stringify(result.items.map((item) => item.insertText))}\n`);
process.stdin.resume();
await once(process.stdin, 'end');
await connection.sendRequest(lsp.ShutdownRequest.type);
await connection.sendNotification(lsp.ExitNotification.type);
await ended;
connection.dispose();
