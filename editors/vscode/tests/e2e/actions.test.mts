// Code actions and commands that end in a document, or in the source-control box.

import { FILES, inventory, NAME } from './inventory.mts';
import { claudeBehindBrokenModel, standIn } from './stand_in.mts';
import { until } from './until.mts';
import { inVsCode, plain } from './vscode.mts';

const rewriter = await standIn('return len(self.counts)');
const author = await standIn('Count what is in stock');

inVsCode(
  'the code action that rewrites asks how, and what comes is in the document',
  { files: FILES, configuration: claudeBehindBrokenModel(rewriter) },
  async (code) => {
    await code.running();
    await code.show(NAME, 16);
    await code.page.keyboard.press('Shift+Home');
    await code.page.locator('[class*="lightbulb" i]').first().waitFor();
    await code.page.keyboard.press('Control+.');
    await code.page
      .locator('.action-widget .monaco-list-row')
      .filter({ hasText: 'Rewrite with Tandem' })
      .click();
    await code.answer('Rewrite with Tandem', 'Count the names instead');
    await until('the line is rewritten', async () =>
      plain(await code.editor.innerText()).includes('return len(self.counts)'),
    );
    await code.saved(NAME, inventory().replace(/return sum.*/, 'return len(self.counts)'));
  },
);

inVsCode(
  'a commit message comes into the source-control box',
  { files: FILES, git: true, configuration: claudeBehindBrokenModel(author) },
  async (code) => {
    await code.running();
    await code.command('Tandem: Write a Commit Message');
    await code.page.keyboard.press('Control+Shift+G');
    const box = code.page.locator('.scm-editor .view-lines');
    await until('the message is in the box', async () =>
      plain(await box.innerText()).includes('Count what is in stock'),
    );
  },
);
