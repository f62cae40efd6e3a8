// Bundles the extension into dist/extension.js, with the licences of what is in it; with --tests,
// the unit tests into dist/tests/.

import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** @type {import('esbuild').BuildOptions} */
const common = {
  absWorkingDir: root,
  bundle: true,
  platform: 'node',
  // Of the oldest VS Code that is supported.
  target: 'node20',
  format: 'cjs',
  external: ['vscode'],
  logLevel: 'warning',
};

/** The extension, in one file. */
export async function buildExtension() {
  rmSync(join(root, 'dist/extension.js'), { force: true });
  const { metafile } = await build({
    ...common,
    entryPoints: ['src/extension.ts'],
    outfile: 'dist/extension.js',
    minify: true,
    metafile: true,
  });
  writeFileSync(join(root, 'dist/licences.txt'), licences(Object.keys(metafile.inputs)));
}

/**
 * What the licences of the bundled packages want to be handed on.
 *
 * @param {string[]} inputs
 */
function licences(inputs) {
  const packages = new Set(
    inputs.flatMap((input) => /^node_modules\/(?:@[^/]+\/)?[^/]+/.exec(input) ?? []),
  );
  return [...packages]
    .sort()
    .map((folder) => {
      const { name, version, license } = manifest(join(root, folder));
      const file = readdirSync(join(root, folder)).find((file) => /^licen[cs]e/i.test(file));
      if (file === undefined) {
        throw new Error(`${folder} has no licence. Take it out, or name its licence here.`);
      }
      const text = readFileSync(join(root, folder, file), 'utf8').trim();
      return `${name} ${version} (${license})\n\n${text}\n`;
    })
    .join('\n---\n\n');
}

/** @param {string} folder */
function manifest(folder) {
  return /** @type {{ name: string, version: string, license: string }} */ (
    JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  );
}

async function buildTests() {
  const folder = join(root, 'dist/tests');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const tests = readdirSync(join(root, 'tests')).filter((file) => file.endsWith('.test.ts'));
  await build({
    ...common,
    entryPoints: tests.map((file) => `tests/${file}`),
    outdir: 'dist/tests',
    sourcemap: 'inline',
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await (process.argv.includes('--tests') ? buildTests() : buildExtension());
}
