// The server's last decisions as a page of text. Pure.

import { reasonInWords } from './status';

/** One request and what became of it, as the command `tandem.decisions` tells it. */
export interface Decision {
  readonly at_unix_ms: number;
  readonly task: string;
  readonly automatic: boolean;
  /** Whether nobody was asked, since what was suggested before still held. */
  readonly cached: boolean;
  readonly attribution: Attribution | null;
  /** `answered`, or what there was instead: `{ empty: REASON }`, `{ failed: KIND }`. */
  readonly outcome: string | Readonly<Record<string, string>>;
  readonly why: string | null;
  readonly failed_attempts: readonly FailedAttempt[];
  readonly took_ms: number;
}

interface Attribution {
  readonly backend: string;
  readonly model: string;
  readonly reason: string;
}

interface FailedAttempt {
  readonly backend: string;
  readonly model: string;
  readonly message: string;
}

/** The page: newest first, as the server sends them. */
export function page(decisions: readonly Decision[], time: (at: Date) => string): string {
  const head = 'The last requests of this window, the newest first. None of your text is kept.\n';
  return decisions.length === 0
    ? `${head}\nNothing was asked yet.\n`
    : `${head}\n${decisions.map((decision) => line(decision, time)).join('\n')}\n`;
}

function line(decision: Decision, time: (at: Date) => string): string {
  const { attribution, automatic, cached, task } = decision;
  const who =
    attribution === null
      ? 'nobody was asked'
      : `${attribution.backend} (${attribution.model}): ${reasonInWords(attribution.reason)}`;
  const first = [
    time(new Date(decision.at_unix_ms)),
    automatic ? `${task} while typing` : task,
    outcomeInWords(decision.outcome),
    cached ? 'there already' : `${Math.round(decision.took_ms)} ms`,
  ].join('  ');
  const more = [
    who,
    ...decision.failed_attempts.map(
      ({ backend, model, message }) => `${backend} (${model}) failed: ${message}`,
    ),
    ...(decision.why === null ? [] : [decision.why]),
  ];
  return [first, ...more.map((text) => `    ${text}`)].join('\n');
}

function outcomeInWords(outcome: Decision['outcome']): string {
  return typeof outcome === 'string'
    ? outcome
    : Object.entries(outcome)
        .map(([kind, reason]) => `${kind} (${reason})`)
        .join(', ');
}
