// Claude, as far as the tests go: a server on this machine that says what it is told to.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after } from 'node:test';

import { variable } from './home.mts';
import { LocalServer } from './server.mts';

/** The only key that it takes. */
export const KEY = 'sk-ant-stand-in';

/** Starts one that goes on until the file's last test ends, and gives its address. */
export async function standIn(say: string): Promise<string> {
  const server = new LocalServer(variable('STAND_IN_BIN'), ['--say', say], {});
  after(() => server.stop());
  return server.address();
}

const BROKEN_MODEL = join(variable('WORK_FOLDER'), 'broken.gguf');
await writeFile(BROKEN_MODEL, 'This is no model.');

/** A configuration with Claude behind a local model that cannot be loaded. */
export function claudeBehindBrokenModel(address: string): string {
  return `
local:
  model: ${BROKEN_MODEL}
claude:
  base_url: ${address}
  api_key_command: [printf, ${KEY}]
  automatic_completions: true
`;
}
