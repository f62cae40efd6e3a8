import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as problems from '../src/problem';

const ALL = [
  problems.missing('path', ''),
  problems.missing('setting', '/nowhere'),
  problems.notRunnable('/bin/x', 'EACCES'),
  problems.notTandem('/bin/x', 'hello\nworld'),
  problems.tooOld('/bin/x', '0.0.1'),
  problems.silent(15),
  problems.crashed(5, 'exit code 1'),
  problems.notProtocol('/bin/x'),
  problems.notRunning(),
];

test('every problem ends with the next step, and has a button for it', () => {
  for (const { key, message, steps } of ALL) {
    assert.match(message, /(estart Tandem|found on PATH)\.$/, key);
    assert.ok(steps.includes('restart'), key);
    assert.equal(new Set(steps).size, steps.length, key);
  }
});

test('what a stranger says is told in short', () => {
  assert.match(problems.notTandem('x', 'hello\nworld').message, /it said "hello"\./);
  assert.match(problems.notTandem('x', '\n').message, /it said nothing\./);
  assert.ok(problems.notTandem('x', 'y'.repeat(10_000)).message.length < 250);
});
