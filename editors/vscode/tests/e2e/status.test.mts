// What the status bar says, and its menu.

import assert from 'node:assert/strict';

import { FILES, LINE, NAME } from './inventory.mts';
import { claudeBehindBrokenModel, standIn } from './stand_in.mts';
import { until } from './until.mts';
import { inVsCode, plain } from './vscode.mts';

const address = await standIn('count + 1');

inVsCode(
  'where the local model fails, Claude answers, and the status says so and why',
  { files: FILES, configuration: claudeBehindBrokenModel(address) },
  async (code) => {
    await code.running();
    await code.show(NAME, LINE);
    assert.doesNotMatch(await code.status.innerText(), /claude/);
    assert.equal(await code.typeUntilSuggested(' = '), 'count + 1');
    await until('the status names Claude', async () =>
      (await code.status.innerText()).includes('claude'),
    );
    await code.status.hover();
    const told = plain(await code.page.locator('.workbench-hover-container').innerText());
    assert.match(told, /claude/);
    assert.match(told, /the local model failed/);
  },
);

inVsCode('the menu pauses suggestions, and resumes them', { files: FILES }, async (code) => {
  await code.running();
  await code.show(NAME, LINE);
  await code.typeUntilSuggested(' = ');
  await code.page.keyboard.press('Escape');

  await code.status.click();
  await code.pick('Pause in this window');
  await until('the status says that it is paused', async () =>
    (await code.status.innerText()).includes('paused'),
  );
  await code.focus();
  await code.type(' ');
  // It had far less time for the suggestion above.
  await assert.rejects(code.ghost.first().waitFor({ timeout: 5000 }));

  await code.status.click();
  await code.pick('Resume in this window');
  await until(
    'the status says that it goes on',
    async () => !(await code.status.innerText()).includes('paused'),
  );
  await code.focus();
  await code.page.keyboard.press('Backspace');
  await code.typeUntilSuggested(' ');
});

inVsCode(
  'a window without a folder: a new file has ghost text, too',
  { configuration: claudeBehindBrokenModel(address) },
  async (code) => {
    await code.running();
    await code.command('File: New Untitled Text File');
    await code.focus();
    assert.equal(await code.typeUntilSuggested('total = '), 'count + 1');
    assert.equal(await code.messages.count(), 0);
  },
);

inVsCode('a window that is closed ends its server', { files: FILES }, async (code) => {
  await code.running();
  assert.equal((await code.servers()).length, 1);
  await code.page.close();
  await until('the server has ended', async () => (await code.servers()).length === 0);
});
