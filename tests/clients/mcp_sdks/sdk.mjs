// Drives `tandem mcp` with both generations of the official TypeScript SDK, in both eras.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { Client as Client2 } from '@modelcontextprotocol/client';
import { StdioClientTransport as Transport2 } from '@modelcontextprotocol/client/stdio';
import { Client as Client1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport as Transport1 } from '@modelcontextprotocol/sdk/client/stdio.js';

const tandem = process.env.TANDEM_BIN ?? 'target/release/tandem';
const ANSWER = 'best = Some(word);';

const TOOLS = {
  complete_code: { prefix: 'let x = ', suffix: '\n', language: 'rust', path: 'lib.rs' },
  edit_code: { code: 'let x = 1;', instruction: 'rename x to y', after: '}' },
  explain_code: { code: 'x += 1', question: 'why?' },
  summarize: { text: 'a long text', length: 'bullets' },
  commit_message: { diff: '+x', style: 'conventional' },
  ask: { question: 'why?', effort: 'low' },
  status: {},
};

const info = { name: 'tandem-tests', version: '1.0.0' };

const generations = [
  {
    name: 'sdk 1, initialize',
    version: '2025-11-25',
    client: () => new Client1(info),
    Transport: Transport1,
    call: (client, params, options) => client.callTool(params, undefined, options),
  },
  {
    name: 'client 2, initialize',
    version: '2025-11-25',
    client: () => new Client2(info, { versionNegotiation: { mode: 'legacy' } }),
    Transport: Transport2,
    call: (client, params, options) => client.callTool(params, options),
  },
  {
    name: 'client 2, server/discover',
    version: '2026-07-28',
    client: () => new Client2(info, { versionNegotiation: { mode: 'auto' } }),
    Transport: Transport2,
    call: (client, params, options) => client.callTool(params, options),
  },
];

async function connected(generation, args, use) {
  const folder = mkdtempSync(join(tmpdir(), 'tandem-mcp-'));
  writeFileSync(join(folder, 'lib.rs'), 'fn f() {}\n');
  const client = generation.client();
  const transport = new generation.Transport({
    command: tandem,
    args: ['mcp', ...args],
    env: { PATH: process.env.PATH, HOME: folder, TANDEM_DAEMON_ENABLED: 'false' },
    cwd: folder,
  });
  await client.connect(transport);
  try {
    await use(client, (params, options) => generation.call(client, params, options));
  } finally {
    await client.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

for (const generation of generations) {
  test(`${generation.name}: handshake, tools, resources and prompts`, async () => {
    await connected(generation, ['--scripted-answer', ANSWER], async (client, call) => {
      assert.equal(client.getServerVersion().name, 'tandem');
      // The first generation does not tell.
      const version = client.getNegotiatedProtocolVersion?.() ?? generation.version;
      assert.equal(version, generation.version);

      const { tools } = await client.listTools();
      assert.deepEqual(tools.map((tool) => tool.name), Object.keys(TOOLS));
      for (const tool of tools) {
        assert.equal(tool.annotations.readOnlyHint, true);
        assert.equal(tool.outputSchema.type, 'object');
        // The SDK validates the structured content against the output schema with Ajv.
        const result = await call({ name: tool.name, arguments: TOOLS[tool.name] });
        assert.notEqual(result.isError, true, JSON.stringify(result));
        assert.equal(result.content[0].type, 'text');
        if (tool.name === 'status') continue;
        assert.equal(result.content[0].text, ANSWER);
        assert.equal(result.structuredContent.text, ANSWER);
        assert.equal(result.structuredContent.backend, 'scripted');
      }

      const wrong = await call({ name: 'ask', arguments: {} });
      assert.equal(wrong.isError, true);
      assert.match(wrong.content[0].text, /`question`/);
      await assert.rejects(call({ name: 'shell', arguments: {} }), /shell/);

      const { resources } = await client.listResources();
      assert.deepEqual(resources.map((resource) => resource.uri), ['tandem://status', 'tandem://decisions']);
      const { contents } = await client.readResource({ uri: 'tandem://status' });
      assert.equal(JSON.parse(contents[0].text).mode, 'auto');
      await assert.rejects(client.readResource({ uri: 'tandem://nothing' }));

      const { prompts } = await client.listPrompts();
      assert.deepEqual(prompts.map((prompt) => prompt.name), ['review', 'commit_message']);
      const prompt = await client.getPrompt({ name: 'commit_message', arguments: { diff: '+x' } });
      assert.match(prompt.messages[0].content.text, /\+x/);
    });
  });

  test(`${generation.name}: progress`, async () => {
    const args = ['--scripted-answer', ANSWER, '--scripted-ms', '600'];
    await connected(generation, args, async (client, call) => {
      const heard = [];
      const options = { onprogress: (progress) => heard.push(progress) };
      const result = await call({ name: 'ask', arguments: { question: '?' } }, options);
      assert.equal(result.content[0].text, ANSWER);
      assert.ok(heard.length > 0);
      assert.match(heard[0].message, /model/);
    });
  });

  test(`${generation.name}: cancellation`, async () => {
    const args = ['--scripted-answer', ANSWER, '--scripted-ms', '20000'];
    await connected(generation, args, async (client, call) => {
      const abort = new AbortController();
      setTimeout(() => abort.abort('enough'), 300);
      await assert.rejects(call({ name: 'ask', arguments: { question: '?' } }, { signal: abort.signal }));
      for (let tries = 0; ; tries += 1) {
        const { contents } = await client.readResource({ uri: 'tandem://decisions' });
        if (contents[0].text.includes('cancelled')) break;
        assert.ok(tries < 100, 'the cancelled call is not among the decisions');
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    });
  });
}
