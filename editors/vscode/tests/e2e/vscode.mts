// A VS Code in Chromium, used as a person would: keys, the mouse, and what is on the screen.

import assert from 'node:assert/strict';
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { test } from 'node:test';

import { chromium, type Browser, type Locator, type Page } from 'playwright-core';

import { Home, variable, type Setup } from './home.mts';
import { LocalServer } from './server.mts';
import { LIMIT_MS, until } from './until.mts';

const WORK = variable('WORK_FOLDER');

/** The size of the window, and how many pixels each of its units has. */
export interface Window {
  readonly width: number;
  readonly height: number;
  readonly scale: number;
}

const WINDOW: Window = { width: 1100, height: 700, scale: 1 };

/** A test in a VS Code of its own; if it fails, a picture and the logs are kept. */
export function inVsCode(name: string, setup: Setup, body: (code: VsCode) => Promise<void>): void {
  test(name, async () => {
    const code = await VsCode.open(setup);
    try {
      await body(code);
    } catch (error) {
      await code.keep(name);
      throw error;
    } finally {
      await code.close();
    }
  });
}

export class VsCode {
  readonly home: Home;
  readonly page: Page;
  /** The editor that has the focus. */
  readonly editor: Locator;
  /** Suggested text that is not in the document. */
  readonly ghost: Locator;
  /** Tandem's item in the status bar. */
  readonly status: Locator;
  /** Messages in the corner. */
  readonly messages: Locator;
  /** The rows of the list at the top: commands, files, a menu's entries. */
  readonly rows: Locator;
  readonly #browser: Browser;
  readonly #server: LocalServer;

  private constructor(home: Home, page: Page, browser: Browser, server: LocalServer) {
    this.home = home;
    this.page = page;
    this.editor = page.locator('.editor-instance .monaco-editor').first();
    this.ghost = page.locator('.ghost-text-decoration, .ghost-text-decoration-preview');
    this.status = page.locator('.statusbar-item[id^="tandem.tandem"]');
    this.messages = page.locator('.notifications-toasts .notification-list-item');
    this.rows = page.locator('.quick-input-list .monaco-list-row');
    this.#browser = browser;
    this.#server = server;
  }

  /** Starts VS Code and opens the folder. */
  static async open(setup: Setup, window: Window = WINDOW): Promise<VsCode> {
    const home = await Home.make(setup);
    const { server, address } = await serve(home);
    const browser = await chromium.launch({
      executablePath: join(WORK, 'bin/chromium'),
      args: ['--no-sandbox'],
      env: { ...home.environment, PATH: process.env['PATH'] },
    });
    const { width, height, scale } = window;
    const page = await browser.newPage({
      viewport: { width, height },
      deviceScaleFactor: scale,
      colorScheme: 'light',
    });
    page.setDefaultTimeout(LIMIT_MS);
    const code = new VsCode(home, page, browser, server);
    try {
      if (setup.files === undefined) {
        await page.goto(`${address}/?ew=true`);
        await page.locator('.statusbar-item').first().waitFor();
      } else {
        await page.goto(`${address}/?folder=${home.folder}`);
        await page.locator('.explorer-folders-view .monaco-list-row').first().waitFor();
      }
    } catch (error) {
      await code.keep('start of VS Code');
      await code.close();
      throw error;
    }
    return code;
  }

  /** Waits until the extension says that its server runs. */
  running(): Promise<unknown> {
    return until('the server runs', async () =>
      (await this.home.log()).includes('server: running'),
    );
  }

  /** Opens a file of the folder, with the cursor behind a line's last character. */
  async show(file: string, line = 1): Promise<void> {
    await this.page.keyboard.press('Control+P');
    await this.page.locator('.quick-input-widget input').first().fill(`${file}:${line}`);
    await this.rows.filter({ hasText: file }).first().waitFor();
    await this.page.keyboard.press('Enter');
    await this.page.locator(`.tab.active[data-resource-name="${basename(file)}"]`).waitFor();
    await this.focus();
    await this.page.keyboard.press('End');
  }

  /** Puts the focus into the editor, the cursor where it was. */
  async focus(): Promise<void> {
    await until('the focus is in the editor', async () => {
      // A list that closes gives the focus back to what had it, which may come later than this key.
      await this.page.keyboard.press('Control+1');
      return this.page
        .locator('.editor-instance .monaco-editor.focused')
        .waitFor({ timeout: 1000 })
        .then(() => true)
        .catch(() => false);
    });
  }

  /** Types, key by key. */
  async type(text: string): Promise<void> {
    await this.page.keyboard.type(text, { delay: 30 });
  }

  /**
   * Types, and gives the text that is suggested then. What VS Code asks for suggestions with is put
   * into a new editor only when there is nothing else to do, and what was typed before is not made
   * up for: then the last character is typed again.
   */
  async typeUntilSuggested(text: string): Promise<string> {
    await this.type(text);
    const ghost = this.ghost.first();
    await until('ghost text', async () => {
      try {
        await ghost.waitFor({ timeout: 3000 });
        return true;
      } catch {
        await this.page.keyboard.press('Backspace');
        await this.type(text.slice(-1));
        return false;
      }
    });
    // Coloured as code, it is in pieces.
    return plain((await this.ghost.allTextContents()).join(''));
  }

  /** Runs a command by its title, as the command palette has it. */
  async command(title: string): Promise<void> {
    await this.page.keyboard.press('F1');
    await this.page.locator('.quick-input-widget input').first().fill(`>${title}`);
    await this.rows.filter({ hasText: title }).first().click();
  }

  /** Answers what is asked under this title in the box at the top. */
  async answer(title: string, text: string): Promise<void> {
    const box = this.page.locator('.quick-input-widget').filter({ hasText: title });
    await box.waitFor();
    await box.locator('input').first().fill(text);
    await this.page.keyboard.press('Enter');
    await box.waitFor({ state: 'hidden' });
  }

  /** Says in VS Code's settings where the program is. */
  setProgram(program: string): Promise<void> {
    return this.home.setProgram(program);
  }

  async clearMessages(): Promise<void> {
    await this.command('Notifications: Clear All Notifications');
    await until('no message is left', async () => (await this.messages.count()) === 0);
  }

  /** Picks the row of a list that has these words. */
  async pick(words: string | RegExp): Promise<void> {
    await this.rows.filter({ hasText: words }).first().click();
  }

  /** Saves, and waits until the file is as it should be. */
  async saved(file: string, expected: string): Promise<void> {
    await this.page.keyboard.press('Control+S');
    await until(
      `${file} is saved`,
      async () => (await this.page.locator('.tab.dirty').count()) === 0,
    );
    assert.equal(await this.home.read(file), expected);
  }

  /** The processes of language servers that were started for this window. */
  servers(): Promise<string[]> {
    return this.home.processes('lsp');
  }

  /** What VS Code's server wrote on its terminal. */
  get said(): string {
    return this.#server.said;
  }

  /** Keeps what there is to see of a failure, and says where. */
  async keep(name: string): Promise<void> {
    const folder = join(WORK, 'failures', name.replaceAll(/[^\w]+/g, '-'));
    await mkdir(folder, { recursive: true });
    await this.page.screenshot({ path: join(folder, 'screen.png') }).catch(() => undefined);
    await writeFile(join(folder, 'code-server.log'), this.#server.said);
    for (const file of await this.home.files('user-data/logs')) {
      await copyFile(file, join(folder, basename(file)));
    }
    const log = (await this.home.log()).split('\n').slice(-30).join('\n');
    process.stderr.write(`${name}: see ${folder}. The extension's log ends with:\n${log}\n`);
  }

  async close(): Promise<void> {
    await this.#browser.close();
    await this.#server.stop();
    await this.home.remove();
  }
}

/** Text as it is in a document; on the screen its blanks do not break. */
export function plain(shown: string): string {
  return shown.replaceAll('\u00a0', ' ');
}

/** Starts code-server, which gives a process of its own ten seconds, and ends where that is too little. */
async function serve(home: Home): Promise<{ server: LocalServer; address: string }> {
  for (let tries = 1; ; tries += 1) {
    const server = new LocalServer(join(WORK, 'bin/node'), codeServer(home), home.environment);
    try {
      return { server, address: await server.address() };
    } catch (error) {
      await server.stop();
      if (tries === 3 || !server.said.includes('error timed out')) {
        throw error;
      }
    }
  }
}

function codeServer(home: Home): string[] {
  return [
    join(WORK, 'code-server/node_modules/code-server/out/node/entry.js'),
    ...['--auth', 'none', '--bind-addr', '127.0.0.1:0'],
    ...['--disable-telemetry', '--disable-update-check', '--disable-workspace-trust'],
    ...['--user-data-dir', home.userData, '--extensions-dir', join(WORK, 'extensions')],
    // The window is gone for good when it is closed, and its server should be, too.
    ...['--reconnection-grace-time', '0'],
  ];
}
