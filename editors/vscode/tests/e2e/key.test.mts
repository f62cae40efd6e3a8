// The key for Claude that is typed in: it works, and is written nowhere that can be read.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';

import { FILES, LINE, NAME } from './inventory.mts';
import { KEY, claudeBehindBrokenModel, standIn } from './stand_in.mts';
import { until } from './until.mts';
import { inVsCode } from './vscode.mts';

const address = await standIn('count + 1');
const configuration = claudeBehindBrokenModel(address).replace(/^.*api_key_command.*\n/m, '');

inVsCode(
  'a key that is typed in reaches Claude, and no file or log',
  { files: FILES, configuration, settings: { 'tandem.log.filter': 'debug' } },
  async (code) => {
    assert.doesNotMatch(configuration, new RegExp(KEY));
    await code.running();
    await code.command('Tandem: Set Claude API Key');
    await code.answer('Claude API key', KEY);
    await until('the server is started anew, with the key', async () =>
      /server: running[^]*server: running/.test(await code.home.log()),
    );
    await code.show(NAME, LINE);
    assert.equal(await code.typeUntilSuggested(' = '), 'count + 1');

    const files = await code.home.files();
    const texts = await Promise.all(files.map((file) => readFile(file).catch(() => Buffer.of())));
    assert.ok(files.some((file) => file.endsWith('Tandem.log')));
    assert.deepEqual(
      files.filter((_, index) => texts[index]?.includes(KEY)),
      [],
    );
    assert.ok(!code.said.includes(KEY));
  },
);
