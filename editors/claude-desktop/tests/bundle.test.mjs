// Packs the bundle, unpacks it as a host does and starts the server as its manifest says.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { getMcpConfigForManifest, hasRequiredConfigMissing, unpackExtension, validateManifest } from '@anthropic-ai/mcpb';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';

const here = import.meta.dirname;
const committed = join(here, '../manifest.json');
const KEY = 'sk-ant-of-the-test';

let folder;
let unpacked;
let manifest;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'tandem-bundle-'));
  const printed = execFileSync(process.execPath, [join(here, '../scripts/package.mjs')], { encoding: 'utf8' });
  const bundle = printed.trim().split('\n').at(-1);
  assert.ok(existsSync(bundle), printed);
  unpacked = join(folder, 'unpacked');
  assert.ok(await unpackExtension({ mcpbPath: bundle, outputDir: unpacked, silent: true }));
  manifest = JSON.parse(readFileSync(join(unpacked, 'manifest.json'), 'utf8'));
});

after(() => rmSync(folder, { recursive: true, force: true }));

/** The server as a host starts it, with what the user configured. */
async function served(userConfig, use) {
  const config = await getMcpConfigForManifest({
    manifest,
    extensionPath: unpacked,
    systemDirs: {},
    userConfig,
    pathSeparator: '/',
  });
  // A host gives a server little of its environment.
  const env = { PATH: process.env.PATH, HOME: folder, TANDEM_DAEMON_ENABLED: 'false', ...config.env };
  const client = new Client({ name: 'tandem-tests', version: '1.0.0' });
  await client.connect(new StdioClientTransport({ command: config.command, args: config.args, env, cwd: folder }));
  try {
    await use(client);
  } finally {
    await client.close();
  }
}

/** Whether the server has a key for Claude. */
async function hasClaude(client) {
  const result = await client.callTool({ name: 'status', arguments: {} });
  assert.notEqual(result.isError, true, JSON.stringify(result));
  assert.ok(!JSON.stringify(result).includes(KEY), 'the key is told');
  return result.structuredContent.backends.find(({ backend }) => backend === 'claude').can_serve;
}

test('both manifests are what the specification wants', () => {
  assert.ok(validateManifest(committed));
  assert.ok(validateManifest(join(unpacked, 'manifest.json')));
});

test('the program can be run, and the bundle names only what it holds', () => {
  const config = manifest.server.mcp_config;
  for (const command of [config, ...Object.values(config.platform_overrides ?? {})].map(({ command }) => command)) {
    const program = command.replace('${__dirname}', unpacked);
    assert.ok(statSync(program).mode & 0o100, `${program} cannot be run`);
  }
  assert.deepEqual(manifest.compatibility.platforms, [process.platform]);
});

test('the key is optional and kept as a secret', () => {
  assert.equal(manifest.user_config.anthropic_api_key.sensitive, true);
  assert.equal(hasRequiredConfigMissing({ manifest, userConfig: {} }), false);
});

test('without a key the server serves its tools, and has no Claude', async () => {
  await served(undefined, async (client) => {
    const { tools } = await client.listTools();
    assert.deepEqual(
      tools.map(({ name, description }) => ({ name, description })),
      manifest.tools,
    );
    assert.equal(client.getServerVersion().version, manifest.version);
    assert.equal(await hasClaude(client), false);
    const result = await client.callTool({ name: 'complete_code', arguments: { prefix: 'import os\nimport ' } });
    assert.notEqual(result.isError, true, JSON.stringify(result));
  });
});

test('with a key Claude is there, and the key is told to nobody', async () => {
  await served({ anthropic_api_key: KEY }, async (client) => {
    assert.equal(await hasClaude(client), true);
  });
});

test('a placeholder that a host leaves is no key', async () => {
  await served({ anthropic_api_key: '${user_config.anthropic_api_key}' }, async (client) => {
    assert.equal(await hasClaude(client), false);
  });
});
