// Packs the bundle: `npm run package`, or with programs for other systems than this one
// `npm run package -- darwin=FILE win32=FILE`. The last line that it prints is the bundle's path.
//
// TANDEM_BIN  the program, where none is named (target/release/tandem)

import { copyFileSync, chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';

import { packExtension } from '@anthropic-ai/mcpb';

const here = import.meta.dirname;
const root = join(here, '../../..');
const manifest = JSON.parse(readFileSync(join(here, '../manifest.json'), 'utf8'));

function fail(message) {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}

/** Which program is for which system. */
function programs(words) {
  if (words.length === 0) {
    const built = process.platform === 'win32' ? 'target/release/tandem.exe' : 'target/release/tandem';
    return new Map([[process.platform, process.env.TANDEM_BIN ?? join(root, built)]]);
  }
  return new Map(
    words.map((word) => {
      const [, system, file] = /^(darwin|linux|win32)=(.+)$/.exec(word) ?? [];
      if (!system) fail(`${word}: write darwin=FILE, linux=FILE or win32=FILE.`);
      return [system, resolve(process.env.INIT_CWD ?? '.', file)];
    }),
  );
}

/** Where a system's program is in the bundle, as the manifest says. */
function place(system) {
  const { mcp_config: config } = manifest.server;
  const { command } = config.platform_overrides[system] ?? config;
  return command.replace('${__dirname}/', '');
}

const chosen = programs(process.argv.slice(2));
const folder = join(root, 'target/claude-desktop/bundle');
rmSync(folder, { recursive: true, force: true });
for (const [system, file] of chosen) {
  if (!existsSync(file)) fail(`${file} is not there. Build it with: cargo build --release`);
  const target = join(folder, place(system));
  mkdirSync(dirname(target), { recursive: true });
  copyFileSync(file, target);
  chmodSync(target, 0o755);
}
copyFileSync(join(root, 'LICENSE'), join(folder, 'LICENSE'));

// The bundle speaks of the programs that are in it, and of no others.
const systems = [...chosen.keys()].sort();
const { mcp_config: config } = manifest.server;
const overrides = systems.slice(1).map((system) => [system, { command: `\${__dirname}/${place(system)}` }]);
manifest.server.entry_point = place(systems[0]);
manifest.server.mcp_config = {
  command: `\${__dirname}/${place(systems[0])}`,
  args: config.args,
  env: config.env,
  ...(overrides.length > 0 ? { platform_overrides: Object.fromEntries(overrides) } : {}),
};
manifest.compatibility.platforms = systems;
writeFileSync(join(folder, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);

const bundle = join(root, `target/claude-desktop/tandem-${manifest.version}-${systems.join('-')}.mcpb`);
rmSync(bundle, { force: true });
if (!(await packExtension({ extensionPath: folder, outputPath: bundle, silent: true }))) {
  fail('The bundle could not be packed. `npx mcpb validate manifest.json` says what is wrong with the manifest.');
}
process.stdout.write(`${bundle}\n`);
