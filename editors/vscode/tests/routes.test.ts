import assert from 'node:assert/strict';
import { test } from 'node:test';

import { page, type Decision } from '../src/routes';

const ANSWERED: Decision = {
  at_unix_ms: 0,
  task: 'complete',
  automatic: true,
  cached: false,
  attribution: { backend: 'candle', model: 'qwen', reason: 'local-healthy' },
  outcome: 'answered',
  why: null,
  failed_attempts: [],
  took_ms: 12.4,
};

function lines(...decisions: Decision[]): string[] {
  return page(decisions, (at) => at.toISOString().slice(11, 19))
    .split('\n')
    .slice(2);
}

test('a line tells when, what, what became of it, how fast, who and why', () => {
  assert.deepEqual(lines(ANSWERED), [
    '00:00:00  complete while typing  answered  12 ms',
    '    candle (qwen): a light request, and the local model is healthy',
    '',
  ]);
});

test('what was there already took no time, and keeps its author', () => {
  assert.deepEqual(lines({ ...ANSWERED, cached: true, took_ms: 0 }).slice(0, 2), [
    '00:00:00  complete while typing  answered  there already',
    '    candle (qwen): a light request, and the local model is healthy',
  ]);
});

test('what failed is told below, with the next step', () => {
  const failed: Decision = {
    ...ANSWERED,
    automatic: false,
    attribution: null,
    outcome: { failed: 'unavailable' },
    why: 'Nobody may answer. Set a key.',
    failed_attempts: [{ backend: 'candle', model: 'qwen', message: 'It broke. Load it anew.' }],
  };
  assert.deepEqual(lines(failed, ANSWERED).slice(0, 4), [
    '00:00:00  complete  failed (unavailable)  12 ms',
    '    nobody was asked',
    '    candle (qwen) failed: It broke. Load it anew.',
    '    Nobody may answer. Set a key.',
  ]);
});

test('no request is no line', () => {
  assert.deepEqual(lines(), ['Nothing was asked yet.', '']);
});
