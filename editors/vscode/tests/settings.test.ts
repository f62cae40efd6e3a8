import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { manifestWithSettings } from '../scripts/settingsFromSchema.mjs';
import { declaredSettings, forServer, type Levels } from '../src/settings';

type Manifest = Parameters<typeof declaredSettings>[0] & {
  capabilities: { untrustedWorkspaces: { restrictedConfigurations: string[] } };
};

const manifest = JSON.parse(readFileSync('package.json', 'utf8')) as Manifest;
const schema = JSON.parse(readFileSync('../../schemas/editor.schema.json', 'utf8')) as object;
const declared = declaredSettings(manifest);

function section(levels: Record<string, Levels>): Record<string, unknown> {
  return forServer(declared, (name) => levels[name]);
}

test('package.json has the settings of the schema', () => {
  assert.deepEqual(
    manifest,
    manifestWithSettings(manifest, schema),
    'the schema is another. Run `npm run settings`.',
  );
});

test('a workspace cannot say what would loosen what the user said', () => {
  const workspace = Object.entries(declared)
    .filter(([, { scope }]) => scope === 'window')
    .map(([name]) => name);
  for (const name of ['tandem.path', 'tandem.mode', 'tandem.log.filter']) {
    assert.ok(!workspace.includes(name), name);
  }
  const groups = new Set(workspace.map((name) => name.split('.')[1]));
  assert.deepEqual([...groups].sort(), ['completion', 'privacy', 'server']);
  // Of an inference server it can only say that typing does not reach it.
  const ofServer = workspace.filter((name) => name.startsWith('tandem.server.'));
  assert.deepEqual(ofServer, ['tandem.server.automatic_completions']);
  // Whatever the model, the address or the money of Claude's is.
  assert.ok(!workspace.some((name) => name.startsWith('tandem.claude.')));
});

test('an untrusted workspace can only take away', () => {
  const { restrictedConfigurations } = manifest.capabilities.untrustedWorkspaces;
  const free = Object.entries(declared)
    .filter(([name, { scope }]) => scope === 'window' && !restrictedConfigurations.includes(name))
    .map(([name]) => name);
  assert.deepEqual(free.sort(), [
    'tandem.completion.languages_off',
    'tandem.completion.paths_off',
    'tandem.privacy.allow_git_ignored',
    'tandem.privacy.allow_secrets',
    'tandem.privacy.deny',
    'tandem.server.automatic_completions',
  ]);
});

test('what nobody set is not sent', () => {
  assert.deepEqual(section({}), {});
  assert.deepEqual(section({ 'tandem.path': { globalValue: '/bin/tandem' } }), {});
});

test('values come as a tree, the workspace before the user', () => {
  assert.deepEqual(
    section({
      'tandem.mode': { globalValue: 'local-only', workspaceValue: 'auto' },
      'tandem.completion.max_tokens': { globalValue: 32, workspaceValue: 8 },
      'tandem.completion.enabled': { globalValue: false },
      'tandem.claude.daily_spend_cap_usd': { workspaceValue: 1000 },
    }),
    { mode: 'local-only', completion: { max_tokens: 8, enabled: false } },
  );
});

test('lists add up, and what one level forbids is forbidden', () => {
  assert.deepEqual(
    section({
      'tandem.privacy.deny': { globalValue: ['a', 'b'], workspaceValue: ['b', 'c'] },
      'tandem.privacy.allow_secrets': { globalValue: false, workspaceValue: null },
      'tandem.privacy.allow_git_ignored': { workspaceValue: null },
      'tandem.completion.languages_off': { workspaceValue: [] },
    }),
    {
      privacy: { deny: ['a', 'b', 'c'], allow_secrets: false },
      completion: { languages_off: [] },
    },
  );
});
