// Packs the extension into dist/tandem.vsix, without a network:
//
//   npm run package                            without the program, which is then found on PATH
//   npm run package -- --with-binary PATH      with the program, for the machines that it is made for
//   npm run package -- --with-binary PATH --target darwin-arm64

import { chmodSync, copyFileSync, mkdirSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { createVSIX } from '@vscode/vsce';

import { buildExtension } from './build.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values } = parseArgs({
  options: { 'with-binary': { type: 'string' }, target: { type: 'string' } },
});

await buildExtension();

const shipped = join(root, 'bin');
rmSync(shipped, { recursive: true, force: true });
const binary = values['with-binary'];
if (binary !== undefined) {
  if (!statSync(binary).isFile()) {
    throw new Error(`${binary} is not a file. Name the built program.`);
  }
  mkdirSync(shipped);
  const copy = join(shipped, basename(binary).endsWith('.exe') ? 'tandem.exe' : 'tandem');
  copyFileSync(binary, copy);
  chmodSync(copy, 0o755);
}

const packagePath = join(root, 'dist/tandem.vsix');
await createVSIX({
  cwd: root,
  packagePath,
  // Everything is in the bundle.
  dependencies: false,
  allowMissingRepository: true,
  skipLicense: true,
  ...(values.target === undefined ? {} : { target: values.target }),
});
