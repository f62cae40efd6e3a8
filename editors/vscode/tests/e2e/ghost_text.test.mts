// Suggestions while typing: they appear, are accepted by Tab, and take no key where there are none.

import assert from 'node:assert/strict';

import { FILES, inventory, LINE, NAME } from './inventory.mts';
import { until } from './until.mts';
import { inVsCode } from './vscode.mts';

const setup = { files: FILES };

inVsCode('ghost text appears while typing, and Tab accepts it', setup, async (code) => {
  await code.running();
  await code.show(NAME, LINE);
  const suggested = await code.typeUntilSuggested(' = ');
  assert.match(suggested, /\S/);
  await code.page.keyboard.press('Tab');
  await until('no ghost text is left', async () => (await code.ghost.count()) === 0);
  await code.saved(NAME, inventory(` = ${suggested}`));
});

inVsCode('Escape takes ghost text away, and Tab indents again', setup, async (code) => {
  await code.running();
  await code.show(NAME, LINE);
  await code.typeUntilSuggested(' = ');
  await code.page.keyboard.press('Escape');
  await until('no ghost text is left', async () => (await code.ghost.count()) === 0);
  await code.page.keyboard.press('Tab');
  // From column 28 to the next stop, which is 32.
  await code.saved(NAME, inventory(' =     '));
});

inVsCode(
  'Tab indents where suggestions are off',
  { ...setup, configuration: 'completion: {enabled: false}' },
  async (code) => {
    await code.running();
    await code.show(NAME, LINE);
    await code.page.keyboard.press('Enter');
    await code.page.keyboard.press('Tab');
    await code.type('pass');
    await code.saved(NAME, inventory('\n            pass'));
    assert.equal(await code.ghost.count(), 0);
  },
);
