// Tandem's MCP server, as VS Code itself starts and ends it.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';

import { FILES } from './inventory.mts';
import { until } from './until.mts';
import { inVsCode, type VsCode } from './vscode.mts';

/** By which the processes of this test are known. */
const mark = randomUUID();

const settings = { 'chat.disableAIFeatures': false, 'tandem.privacy.deny': [mark] };

/** The settings that the MCP server which runs was started with; none if none runs. */
async function running(code: VsCode): Promise<string[]> {
  const processes = await code.home.run('ps', '-eo', 'args');
  return processes
    .split('\n')
    .filter((line) => line.includes(' mcp ') && line.includes(mark))
    .map((line) => line.slice(line.indexOf('{')));
}

/** Starts it as a person would, once it is offered. */
async function start(code: VsCode): Promise<void> {
  const server = code.rows.filter({ hasText: /^Tandem/ });
  await until('the MCP server in the list', async () => {
    await code.command('MCP: List Servers');
    await code.rows.filter({ hasText: 'Add Server' }).waitFor();
    const offered = (await server.count()) > 0;
    if (!offered) {
      await code.page.keyboard.press('Escape');
    }
    return offered;
  });
  await server.click();
  await code.pick('Start Server');
}

inVsCode(
  'the MCP server is held to the settings, and ended when they change',
  {
    files: FILES,
    settings,
  },
  async (code) => {
    await code.running();
    await start(code);
    const before = await until('the MCP server', async () => (await running(code))[0]);
    assert.deepEqual(JSON.parse(before), { privacy: { deny: [mark] } });
    // By a file: starting the server moves the focus about, at its leisure.
    const workspace = JSON.stringify({ 'tandem.privacy.deny': ['clients/**'] });
    await code.home.write('work/.vscode/settings.json', workspace);
    await until('the end of the MCP server', async () => (await running(code)).length === 0);
    await start(code);
    const after = await until('the MCP server again', async () => (await running(code))[0]);
    assert.deepEqual(JSON.parse(after), { privacy: { deny: [mark, 'clients/**'] } });
  },
);
