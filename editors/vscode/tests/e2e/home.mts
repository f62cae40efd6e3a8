// What one VS Code of the tests has for itself: a home, its own settings, a folder to work in.

import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readdir, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

/** What a test starts from. */
export interface Setup {
  /** The files of the folder that is opened; without them, none is. */
  readonly files?: Readonly<Record<string, string>>;
  /** Settings of VS Code, beside those that keep it quiet. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** `tandem.path`, if it is not the program under test. */
  readonly program?: string;
  /** Tandem's own configuration. */
  readonly configuration?: string;
  /** Whether the folder is a Git repository; its files are staged then. */
  readonly git?: boolean;
}

/** Settings that keep VS Code from saying what nobody asked, and from saving by itself. */
const QUIET = {
  'chat.disableAIFeatures': true,
  'extensions.autoCheckUpdates': false,
  'extensions.ignoreRecommendations': true,
  'files.autoSave': 'off',
  'git.openRepositoryInParentFolders': 'never',
  'telemetry.telemetryLevel': 'off',
  'update.showReleaseNotes': false,
  'window.commandCenter': false,
  'workbench.enableExperiments': false,
  'workbench.secondarySideBar.defaultVisibility': 'hidden',
  'workbench.startupEditor': 'none',
  'workbench.tips.enabled': false,
};

/** A variable that `.ci/vscode-tests` sets. */
export function variable(name: string): string {
  const value = process.env[name];
  if (value === undefined) {
    throw new Error(`${name} is not set. Run .ci/vscode-tests.`);
  }
  return value;
}

export const TANDEM = variable('TANDEM_BIN');

export class Home {
  readonly root: string;
  /** The folder that is opened. */
  readonly folder: string;
  readonly userData: string;
  readonly environment: NodeJS.ProcessEnv;

  private constructor(root: string) {
    this.root = root;
    this.folder = join(root, 'work');
    this.userData = join(root, 'user-data');
    this.environment = {
      HOME: root,
      LANG: 'C.UTF-8',
      PATH: '/usr/local/bin:/usr/bin:/bin',
      // Its own folder for what VS Code and Tandem keep in /tmp.
      TMPDIR: join(root, 'tmp'),
    };
  }

  static async make(setup: Setup): Promise<Home> {
    // Sockets are made in it, and their paths must stay short.
    const home = new Home(await mkdtemp(join(tmpdir(), 'tandem-')));
    await mkdir(join(home.root, 'tmp'));
    await home.write('user-data/User/settings.json', json({ ...QUIET, ...setup.settings }));
    await home.setProgram(setup.program ?? TANDEM);
    if (setup.configuration !== undefined) {
      await home.write('.config/tandem/config.yaml', setup.configuration);
    }
    for (const [name, text] of Object.entries(setup.files ?? {})) {
      await home.write(join('work', name), text);
    }
    if (setup.git === true) {
      await home.run('git', 'init', '--quiet', '--initial-branch=main', home.folder);
      await home.run('git', '-C', home.folder, 'add', '--all');
    }
    return home;
  }

  /** Writes a file, its path relative to this home. */
  async write(name: string, text: string): Promise<void> {
    const path = join(this.root, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text, { mode: 0o755 });
  }

  /** Writes into VS Code's settings where the program is. */
  setProgram(program: string): Promise<void> {
    return this.write('user-data/Machine/settings.json', json({ 'tandem.path': program }));
  }

  /** Writes a shell script, and gives its path. */
  async script(name: string, text: string): Promise<string> {
    await this.write(name, `#!/bin/sh\n${text}\n`);
    return join(this.root, name);
  }

  /** A file of the folder that is opened, as it is on disk. */
  read(name: string): Promise<string> {
    return readFile(join(this.folder, name), 'utf8');
  }

  /** What a program says that is run in this home. */
  async run(program: string, ...args: string[]): Promise<string> {
    const options = { env: this.environment, timeout: 30_000 };
    return (await promisify(execFile)(program, args, options)).stdout;
  }

  /** All files below this home, or below a folder of it; those that went meanwhile are left out. */
  async files(below = ''): Promise<string[]> {
    const entries = await readdir(join(this.root, below), {
      recursive: true,
      withFileTypes: true,
    }).catch(() => []);
    return entries
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => join(parentPath, name));
  }

  /** What the extension and VS Code's extension host wrote into their logs. */
  async log(name = 'Tandem.log'): Promise<string> {
    const logs = (await this.files('user-data/logs')).filter((file) => file.endsWith(name));
    return (await Promise.all(logs.map((file) => readFile(file, 'utf8')))).join('\n');
  }

  /** The processes with this argument that work in the folder that is opened. */
  async processes(argument: string): Promise<string[]> {
    const found = [];
    for (const id of await readdir('/proc')) {
      try {
        const words = (await readFile(`/proc/${id}/cmdline`, 'utf8')).split('\0');
        if (words.includes(argument) && (await readlink(`/proc/${id}/cwd`)) === this.folder) {
          found.push(id);
        }
      } catch {
        // It is no process, or not any more.
      }
    }
    return found;
  }

  async remove(): Promise<void> {
    // It is there where a model was configured, and outlives the editor.
    await this.run(TANDEM, 'daemon', 'stop').catch(() => undefined);
    await rm(this.root, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }
}

function json(value: unknown): string {
  return JSON.stringify(value, undefined, 2);
}
