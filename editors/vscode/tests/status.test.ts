import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { describe, reasonInWords, show, type Status } from '../src/status';

function status(over: Partial<Status>): Status {
  return { state: 'healthy', backend: 'candle', model: 'qwen', reason: null, ...over };
}

test('the item tells who answers, and turns while something is on its way', () => {
  for (const [state, text, colour] of [
    ['healthy', '$(sparkle) Tandem candle', undefined],
    ['unloaded', '$(sparkle) Tandem candle', undefined],
    ['loading', '$(loading~spin) Tandem candle loading', undefined],
    ['downloading', '$(loading~spin) Tandem candle downloading', undefined],
    ['probing', '$(loading~spin) Tandem candle probing', undefined],
    ['paused', '$(debug-pause) Tandem paused', undefined],
    ['disabled', '$(debug-pause) Tandem disabled', undefined],
    ['degraded', '$(warning) Tandem candle degraded', 'warning'],
    ['failed', '$(warning) Tandem candle failed', 'warning'],
  ] as const) {
    assert.deepEqual(show('running', status({ state }), undefined), { text, colour }, state);
  }
  const nobody = status({ state: 'absent', backend: null, model: null });
  assert.deepEqual(show('running', nobody, undefined).text, '$(warning) Tandem nobody absent');
});

test('a language that is off is told, unless everything is', () => {
  const off = (state: string) => show('running', status({ state }), 'python').text;
  assert.equal(off('healthy'), '$(debug-pause) Tandem off for python');
  assert.equal(off('paused'), '$(debug-pause) Tandem paused');
  assert.match(show('gave-up', undefined, 'python').text, /stopped/);
});

test('without a server the item says what became of it', () => {
  assert.equal(show('gave-up', undefined, undefined).colour, 'error');
  assert.match(show('waiting', undefined, undefined).text, /spin/);
  assert.match(show('running', undefined, undefined).text, /spin/);
  for (const phase of ['stopped', 'starting', 'waiting', 'gave-up'] as const) {
    const [only, ...more] = describe(phase, undefined);
    assert.match(only?.text ?? '', /server/);
    assert.deepEqual(more, []);
  }
});

test('the tooltip has what is known, and the message last', () => {
  const told = describe('running', status({ reason: 'fell-back', message: 'Do this.' }));
  assert.deepEqual(told, [
    { name: 'State', text: 'healthy' },
    { name: 'Backend', text: 'candle' },
    { name: 'Model', text: 'qwen' },
    { name: 'Why', text: 'who was asked before failed' },
    { text: 'Do this.' },
  ]);
  const nobody = describe('running', status({ backend: null, model: null }));
  assert.deepEqual(nobody, [{ name: 'State', text: 'healthy' }]);
});

test('every reason of the server has its words', () => {
  const source = readFileSync('../../src/inference/reason.rs', 'utf8');
  const body = /pub enum RouteReason \{([^}]*)\}/.exec(source)?.[1] ?? '';
  const names = [...body.matchAll(/^ {4}(\w+),$/gm)].flatMap(([, name]) => name ?? []);
  assert.ok(names.length > 5, 'the reasons are found');
  for (const name of names) {
    const reason = name.replace(/(?<!^)[A-Z]/g, '-$&').toLowerCase();
    assert.notEqual(reasonInWords(reason), reason, `${reason}: add it to src/status.ts`);
  }
  assert.equal(reasonInWords('something-new'), 'something-new');
});
