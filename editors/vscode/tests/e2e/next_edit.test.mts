// The next edit: shown where it is, made by Tab, skipped, taken back by Escape.

import { until } from './until.mts';
import { inVsCode, type VsCode } from './vscode.mts';

const NAME = 'report.py';
const TEXT = `def compute_total(items):
    return sum(items)


def report(items):
    print("é", compute_total(items))
    return compute_total(items) + 1
`;
const FILES = { [NAME]: TEXT };
const ASK = 'Tandem: Next Edit: Show It, Then Make It';

/** Renames the function where it is declared, and asks for the next edit. */
async function renamed(code: VsCode): Promise<void> {
  await code.running();
  await code.show(NAME, 1);
  for (let left = '(items):'.length; left > 0; left -= 1) {
    await code.page.keyboard.press('ArrowLeft');
  }
  for (let left = 'total'.length; left > 0; left -= 1) {
    await code.page.keyboard.press('Shift+ArrowLeft');
  }
  await code.type('sum');
  await code.page.keyboard.press('Escape');
  await code.command(ASK);
  await at(code, 6);
}

/** Waits until the cursor is in a line. */
async function at(code: VsCode, line: number): Promise<void> {
  await code.page.getByText(new RegExp(`^Ln ${line}, Col`)).waitFor();
}

inVsCode(
  'the next edit is made by Tab, and then the one after it',
  { files: FILES },
  async (code) => {
    await renamed(code);
    await code.focus();
    await code.page.keyboard.press('Tab');
    await at(code, 7);
    await code.page.keyboard.press('Tab');
    await until('the last is made', async () =>
      (await code.editor.innerText())
        .replaceAll('\u00a0', ' ')
        .includes('return compute_sum(items)'),
    );
    await code.saved(NAME, TEXT.replaceAll('compute_total', 'compute_sum'));
  },
);

inVsCode('a next edit that is skipped leaves its place', { files: FILES }, async (code) => {
  await renamed(code);
  await code.command('Tandem: Next Edit: Skip the One Shown');
  await at(code, 7);
  await code.focus();
  // What an extension draws has such a class.
  const drawn = code.page.locator('.monaco-editor [class*="ced-"]');
  await until('it is shown', async () => (await drawn.count()) > 0);
  await until('it is hidden', async () => {
    await code.page.keyboard.press('Escape');
    return (await drawn.count()) === 0;
  });
  // So this is a Tab like any other.
  await code.page.keyboard.press('Home');
  await code.page.keyboard.press('Tab');
  await code.saved(
    NAME,
    TEXT.replace('def compute_total', 'def compute_sum').replace(
      '    return compute_total',
      '        return compute_total',
    ),
  );
});
