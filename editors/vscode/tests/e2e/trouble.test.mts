// A server that is missing, or is none: one message each, which tells the next step.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { FILES, LINE, NAME } from './inventory.mts';
import { TANDEM } from './home.mts';
import { until } from './until.mts';
import { inVsCode, plain, type VsCode } from './vscode.mts';

/** Waits for a message with these words, and sees that it is the only one. */
async function oneMessage(code: VsCode, words: RegExp): Promise<void> {
  await code.messages.filter({ hasText: words }).first().waitFor();
  assert.equal(await code.messages.count(), 1, await code.messages.allInnerTexts().then(String));
}

inVsCode(
  'a program that is missing: one message, and its setting corrected starts it',
  { files: FILES, program: '/nowhere/tandem' },
  async (code) => {
    await oneMessage(code, /"\/nowhere\/tandem", which is not the full path of a program/);
    assert.match(await code.status.innerText(), /stopped/);
    // Editing on brings no further message.
    await code.show(NAME, LINE);
    await code.type(' = ');
    await oneMessage(code, /\/nowhere\/tandem/);
    await code.setProgram(TANDEM);
    await code.running();
  },
);

inVsCode(
  'a program that crashes: started a few times, then one message',
  {
    files: FILES,
    program: '/nowhere/tandem',
  },
  async (code) => {
    await oneMessage(code, /\/nowhere\/tandem/);
    const starts = join(code.home.root, 'starts');
    const program = await code.home.script(
      'crashes',
      `if [ "$1" = --version ]; then exec '${TANDEM}' --version; fi\necho started >> '${starts}'\nexit 3`,
    );
    await code.clearMessages();
    await code.setProgram(program);
    await oneMessage(code, /The server ended 5 times \(exit code 3\) and is not started again/);
    assert.equal(await readFile(starts, 'utf8'), 'started\n'.repeat(5));
    assert.match(await code.status.innerText(), /stopped/);
  },
);

inVsCode('programs that are none: each is told apart', { files: FILES }, async (code) => {
  await code.running();
  const version = `if [ "$1" = --version ]; then exec '${TANDEM}' --version; fi\n`;
  for (const [name, script, words] of [
    ['chatters', `${version}echo Welcome; exec cat`, /is not the language server protocol/],
    ['other', 'echo other 1.0', /is not Tandem/],
    ['old', 'echo tandem 0.0.1', /is Tandem 0\.0\.1; this extension needs/],
    ['hangs', `${version}exec sleep 60`, /has not answered for 15 s/],
  ] as const) {
    await code.clearMessages();
    await code.setProgram(await code.home.script(name, script));
    await oneMessage(code, words);
  }
  await code.clearMessages();
  await code.setProgram(TANDEM);
  await until('the right one runs', async () =>
    (await code.status.innerText()).includes('embedded'),
  );
});

inVsCode(
  'the log is one click away',
  { files: FILES, program: '/nowhere/tandem' },
  async (code) => {
    await oneMessage(code, /\/nowhere\/tandem/);
    await code.command('Tandem: Show Log');
    await until('the log is shown', async () =>
      plain(await code.page.locator('.part.panel .view-lines').innerText()).includes(
        '/nowhere/tandem',
      ),
    );
  },
);
