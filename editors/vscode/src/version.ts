// Which program this is, and whether it is new enough: by what `tandem --version` says.

/** The oldest program that has all the extension needs. */
export const OLDEST = '0.1.0';

/** The version in the output of `tandem --version`, such as `tandem 0.1.0`. */
export function parseVersion(output: string): string | undefined {
  return /^tandem (\d+\.\d+\.\d+(?:[-+][\w.+-]+)?)\s*$/.exec(output)?.[1];
}

/** Whether `version` comes before `oldest`. What follows the three numbers does not count. */
export function isOlder(version: string, oldest: string): boolean {
  const [left, right] = [numbers(version), numbers(oldest)];
  const at = left.findIndex((number, index) => number !== right[index]);
  return at >= 0 && (left[at] ?? 0) < (right[at] ?? 0);
}

function numbers(version: string): number[] {
  return version
    .split(/[-+]/, 1)
    .flatMap((core) => core.split('.'))
    .map(Number);
}
