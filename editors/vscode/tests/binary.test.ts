import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { after, test } from 'node:test';

import { find, type Search } from '../src/binary';

const root = mkdtempSync(join(tmpdir(), 'tandem-binary-'));
after(() => {
  rmSync(root, { recursive: true });
});

function program(folder: string, mode = 0o755): string {
  mkdirSync(join(root, folder), { recursive: true });
  const path = join(root, folder, 'tandem');
  writeFileSync(path, '');
  chmodSync(path, mode);
  return path;
}

function search(over: Partial<Search>): Search {
  return {
    setting: '',
    extension: join(root, 'nothing'),
    path: undefined,
    home: root,
    windows: false,
    ...over,
  };
}

test('the setting wins over what is shipped, and that over PATH', async () => {
  const setting = program('set');
  const shipped = program('extension/bin');
  const onPath = program('path');
  const all = { setting, extension: join(root, 'extension'), path: join(root, 'path') };
  assert.deepEqual(await find(search(all)), { program: setting, from: 'setting' });
  const unset = { ...all, setting: ' ' };
  assert.deepEqual(await find(search(unset)), { program: shipped, from: 'shipped' });
  const unshipped = { ...unset, extension: root };
  assert.deepEqual(await find(search(unshipped)), { program: onPath, from: 'path' });
  assert.deepEqual(await find(search({})), { not: 'path' });
});

test('a setting that leads nowhere is not made up for', async () => {
  const path = join(root, 'path');
  program('path');
  for (const setting of [join(root, 'none'), 'tandem', './tandem', root]) {
    assert.deepEqual(await find(search({ setting, path })), { not: 'setting' }, setting);
  }
});

test('a tilde means home', async () => {
  const expected = { program: program('in-home'), from: 'setting' };
  assert.deepEqual(await find(search({ setting: '~/in-home/tandem' })), expected);
});

test('what cannot be run and where anybody may write is passed over', async () => {
  program('plain', 0o644);
  const good = program('good');
  const path = ['', '.', 'relative', join(root, 'plain'), join(root, 'good')].join(delimiter);
  assert.deepEqual(await find(search({ path })), { program: good, from: 'path' });
});

test('on Windows it is an .exe', async () => {
  program('windows');
  const path = join(root, 'windows');
  assert.deepEqual(await find(search({ path, windows: true })), { not: 'path' });
  writeFileSync(join(path, 'tandem.exe'), '');
  const expected = { program: join(path, 'tandem.exe'), from: 'path' };
  assert.deepEqual(await find(search({ path, windows: true })), expected);
});
