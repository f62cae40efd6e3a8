// Draws README's pictures of VS Code: `.ci/vscode-tests --pictures`. The suggestion is tandem-mini's.

import { join } from 'node:path';

import { VsCode, type Window } from './vscode.mts';

const WINDOW: Window = { width: 740, height: 440, scale: 2 };

const POINT = `//! A point in the plane.

use std::fmt;

/// A point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
}

impl fmt::Display for Point {
    fn fmt(&self,
        write!(f, "({}, {})", self.x, self.y)
    }
}
`;

/** Nothing is in the picture that is not about what it shows. */
const settings = {
  'breadcrumbs.enabled': false,
  'editor.cursorBlinking': 'solid',
  'editor.minimap.enabled': false,
  'editor.renderLineHighlight': 'none',
  'editor.scrollBeyondLastLine': false,
  'editor.wordBasedSuggestions': 'off',
  'workbench.activityBar.location': 'hidden',
  'workbench.layoutControl.enabled': false,
};

const assets = process.argv[2];
if (assets === undefined) {
  throw new Error('usage: .ci/vscode-tests --pictures');
}

const code = await VsCode.open({ files: { 'point.rs': POINT }, settings }, WINDOW);
try {
  await code.running();
  await code.show('point.rs', 13);
  await code.command('View: Toggle Primary Side Bar Visibility');
  await code.focus();
  await code.typeUntilSuggested(' f: &mut fmt');
  await code.page.screenshot({ path: join(assets, 'vscode.png') });

  // A list is as high as its window lets it: all of it is to be seen, and not all of the window.
  await code.page.setViewportSize({ width: WINDOW.width, height: 1100 });
  await code.status.click();
  await code.rows.first().waitFor();
  const menu = await code.page.locator('.quick-input-widget').boundingBox();
  const height = (menu?.y ?? 0) + (menu?.height ?? 0) + 20;
  await code.page.screenshot({
    path: join(assets, 'vscode-menu.png'),
    clip: { x: 0, y: 0, width: WINDOW.width, height },
  });
} catch (error) {
  await code.keep('pictures');
  throw error;
} finally {
  await code.close();
}
