// Waiting for what comes about by itself, with a limit.

import { setTimeout as pause } from 'node:timers/promises';

/** Two busy cores may need this long for anything that a person would call prompt. */
export const LIMIT_MS = 120_000;

/** Looks again and again until `look` gives something; says `what` did not come if it never does. */
export async function until<T>(
  what: string,
  look: () => Promise<T | undefined | false>,
  limitMs = LIMIT_MS,
): Promise<T> {
  const end = performance.now() + limitMs;
  for (;;) {
    const seen = await look();
    if (seen !== undefined && seen !== false) {
      return seen;
    }
    if (performance.now() > end) {
      throw new Error(`this did not come within ${limitMs / 1000} s: ${what}`);
    }
    await pause(100);
  }
}
