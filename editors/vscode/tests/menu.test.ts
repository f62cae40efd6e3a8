import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { entries, title, type Situation } from '../src/menu';

const QUIET: Situation = {
  phase: 'running',
  status: { state: 'healthy', backend: 'candle', model: 'qwen', reason: 'local-healthy' },
  paused: false,
  language: { id: 'python', paused: false },
  mode: 'auto',
  localOnlySetting: false,
  hasKey: false,
};

const manifest = JSON.parse(readFileSync('package.json', 'utf8')) as {
  contributes: {
    commands: { command: string }[];
    keybindings: { key: string; command: string; when: string }[];
    menus: Record<string, { command: string }[]>;
  };
};
const declared = new Set(manifest.contributes.commands.map(({ command }) => command));

function commands(over: Partial<Situation>): (string | undefined)[] {
  return entries({ ...QUIET, ...over }).flatMap(({ command, separator }) =>
    separator === true ? [] : [command],
  );
}

test('every entry runs a command that there is', () => {
  for (const over of [
    {},
    { phase: 'gave-up' },
    { paused: true },
    { hasKey: true },
    { localOnlySetting: true },
  ] as const) {
    for (const command of commands(over)) {
      assert.ok(declared.has(command ?? ''), command);
    }
  }
  for (const { command } of Object.values(manifest.contributes.menus).flat()) {
    assert.ok(declared.has(command), command);
  }
});

test('every declared command is registered, and every registered one declared', () => {
  const source = readFileSync('src/extension.ts', 'utf8') + readFileSync('src/actions.ts', 'utf8');
  const registered = new Set(
    [...source.matchAll(/^ {2,4}'(tandem\.\w+)'[:,]/gm)].flatMap(([, name]) => name ?? []),
  );
  // Runs with a suggestion, and is of no use to a person.
  registered.delete('tandem.accepted');
  registered.delete('tandem.acceptedEdit');
  assert.deepEqual([...registered].sort(), [...declared].sort());
});

test('no key is taken, but for the next edit that the user has asked for', () => {
  const keys = manifest.contributes.keybindings.map(({ key }) => key);
  assert.deepEqual(keys, ['tab', 'escape']);
  for (const { command, when } of manifest.contributes.keybindings) {
    assert.ok(when.startsWith('tandem.nextEditShown && editorTextFocus && '), command);
    assert.ok(when.includes('!suggestWidgetVisible && !inlineSuggestionVisible'), command);
  }
});

test('what can be switched is offered while a server runs', () => {
  assert.deepEqual(commands({}).slice(0, 4), [
    'tandem.pause',
    'tandem.toggleLanguage',
    'tandem.toggleLocalOnly',
    'tandem.routes',
  ]);
  assert.equal(commands({ paused: true })[0], 'tandem.resume');
  assert.equal(commands({ language: undefined })[1], 'tandem.toggleLocalOnly');
  assert.equal(commands({ phase: 'gave-up' })[0], 'tandem.doctor');
});

test('local only that somebody else said is told, not switched', () => {
  const elsewhere = entries({ ...QUIET, mode: 'local-only' })[2];
  assert.equal(elsewhere?.command, undefined);
  assert.match(elsewhere?.detail ?? '', /configuration file/);
  const here = entries({ ...QUIET, mode: 'local-only', localOnlySetting: true })[2];
  assert.equal(here?.command, 'tandem.toggleLocalOnly');
});

test('the title tells who answers and why', () => {
  assert.equal(
    title(QUIET),
    'Tandem: healthy · candle (qwen) · a light request, and the local model is healthy',
  );
  assert.equal(title({ ...QUIET, phase: 'gave-up' }), 'Tandem: stopped');
});
