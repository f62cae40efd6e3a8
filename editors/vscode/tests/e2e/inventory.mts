// The file that is edited in the tests, in which a value is missing.

import { readFile } from 'node:fs/promises';

export const NAME = 'inventory.py';

/** The line whose value is missing, counted from 1. */
export const LINE = 13;

const WITH_EQUALS = await readFile(
  new URL('../../../../tests/data/picture/inventory.py', import.meta.url),
  'utf8',
);

/** The file, with nothing behind `self.counts[name]` but this. */
export function inventory(behind = ''): string {
  return WITH_EQUALS.replace('self.counts[name] = \n', `self.counts[name]${behind}\n`);
}

export const FILES = { [NAME]: inventory() };
