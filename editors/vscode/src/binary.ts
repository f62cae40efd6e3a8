// Where the program is: the user's setting, then the one shipped with the extension, then PATH.

import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { delimiter, isAbsolute, join } from 'node:path';

/** What the search depends on. */
export interface Search {
  /** `tandem.path`. */
  readonly setting: string;
  /** The folder of the extension. */
  readonly extension: string;
  /** `PATH`. */
  readonly path: string | undefined;
  readonly home: string;
  readonly windows: boolean;
}

/** A program, or where it was looked for in vain. */
export type Found =
  | { readonly program: string; readonly from: 'setting' | 'shipped' | 'path' }
  | { readonly not: 'setting' | 'path' };

/** Looks for the program. A setting that leads nowhere is an error, and nothing else runs instead. */
export async function find(search: Search): Promise<Found> {
  const setting = search.setting.trim();
  if (setting !== '') {
    const program = setting.replace(/^~(?=[/\\]|$)/, search.home);
    // Relative to what would depend on the folder that happens to be open.
    const good = isAbsolute(program) && (await runnable(program, search.windows));
    return good ? { program, from: 'setting' } : { not: 'setting' };
  }
  const name = search.windows ? 'tandem.exe' : 'tandem';
  const shipped = join(search.extension, 'bin', name);
  if (await runnable(shipped, search.windows)) {
    return { program: shipped, from: 'shipped' };
  }
  for (const folder of (search.path ?? '').split(delimiter)) {
    // An empty or relative entry means the current folder, which may be anybody's.
    const program = join(folder, name);
    if (isAbsolute(folder) && (await runnable(program, search.windows))) {
      return { program, from: 'path' };
    }
  }
  return { not: 'path' };
}

async function runnable(path: string, windows: boolean): Promise<boolean> {
  try {
    // Windows tells programs by their names.
    await access(path, windows ? constants.F_OK : constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}
