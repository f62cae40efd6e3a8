import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { askVersion, ending, endWithin, withKey } from '../src/process';

const root = mkdtempSync(join(tmpdir(), 'tandem-process-'));
after(() => {
  rmSync(root, { recursive: true });
});

/** A program of a few lines of shell. */
function script(name: string, body: string): string {
  const path = join(root, name);
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
  return path;
}

test('a version is what the program says, whatever its exit code', async () => {
  const good = script('good', 'echo tandem 0.1.0');
  assert.deepEqual(await askVersion(good, process.env), { said: 'tandem 0.1.0\n' });
  const bad = script('bad', 'echo usage: x; exit 2');
  assert.deepEqual(await askVersion(bad, process.env), { said: 'usage: x\n' });
});

test('a program that cannot be run says why', async () => {
  const missing = await askVersion(join(root, 'none'), process.env);
  assert.deepEqual(missing, { failed: 'ENOENT' });
});

test('a program that hangs is ended', async () => {
  // `exec`, so that no child of the shell keeps the pipe.
  const hanging = script('hanging', 'exec sleep 1000');
  const answer = await askVersion(hanging, process.env, 50);
  assert.deepEqual(answer, { failed: 'asked for its version, it did not answer within 0.05 s' });
});

test('a process that does not end by itself is killed', async () => {
  const child = spawn(script('stubborn', 'trap "" TERM; echo on; exec sleep 1000'), {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  child.kill();
  await endWithin(child, 50);
  assert.equal(child.signalCode, 'SIGKILL');
  await endWithin(child, 50);
});

test('a process that never was needs no end', async () => {
  const child = spawn(join(root, 'none'));
  child.once('error', () => undefined);
  await endWithin(child, 50);
});

test('ends have words', () => {
  assert.equal(ending(3, null), 'exit code 3');
  assert.equal(ending(null, 'SIGSEGV'), 'signal SIGSEGV');
});

test('the key is in the environment that is asked for, and nowhere else', () => {
  const environment = { PATH: '/bin', ANTHROPIC_API_KEY: 'inherited' };
  assert.equal(withKey(environment, undefined), environment);
  assert.deepEqual(withKey(environment, 'kept'), { PATH: '/bin', ANTHROPIC_API_KEY: 'kept' });
  assert.equal(environment.ANTHROPIC_API_KEY, 'inherited');
});
