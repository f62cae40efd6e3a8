import assert from 'node:assert/strict';
import { test } from 'node:test';

import { isOlder, parseVersion } from '../src/version';

test('only what Tandem says is a version of Tandem', () => {
  assert.equal(parseVersion('tandem 0.1.0\n'), '0.1.0');
  assert.equal(parseVersion('tandem 1.20.3-rc.1+abc\n'), '1.20.3-rc.1+abc');
  for (const other of [
    '',
    '0.1.0',
    'tandem',
    'tandem 1',
    'git version 2.50.1',
    'hi\ntandem 0.1.0',
  ]) {
    assert.equal(parseVersion(other), undefined, other);
  }
});

test('versions are compared by their numbers', () => {
  for (const [version, oldest, expected] of [
    ['0.1.0', '0.1.0', false],
    ['0.0.9', '0.1.0', true],
    ['0.10.0', '0.9.0', false],
    ['1.0.0', '0.9.9', false],
    ['0.9.9', '1.0.0', true],
    ['0.1.0-rc.1', '0.1.0', false],
  ] as const) {
    assert.equal(isOlder(version, oldest), expected, `${version} and ${oldest}`);
  }
});
