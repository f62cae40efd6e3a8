// What the server says of itself (`tandem/status`), in words and icons. Pure.

import type { Phase } from './supervisor';

/** The parameters of `tandem/status`. */
export interface Status {
  /** `paused`, `disabled`, or the health of the backend that is asked first. */
  readonly state: string;
  readonly backend: string | null;
  readonly model: string | null;
  /** Why the last answer came from there. */
  readonly reason: string | null;
  readonly emptyReason?: string;
  /** What a person should know, ending with the next step. */
  readonly message?: string;
}

/** What the server's command `tandem.status` answers with besides. */
export interface Report extends Status {
  readonly mode: string;
}

/** What the status item shows. */
export interface Shown {
  readonly text: string;
  readonly colour: 'warning' | 'error' | undefined;
}

/** States in which something is on its way. */
const BUSY: ReadonlySet<string> = new Set(['loading', 'probing', 'downloading']);

/** States in which nothing is wrong. An unloaded model is loaded with the next request. */
const GOOD: ReadonlySet<string> = new Set(['healthy', 'unloaded']);

/** States that the user chose. */
const CHOSEN: ReadonlySet<string> = new Set(['paused', 'disabled']);

/** The server's reasons, for people. */
const REASONS: Readonly<Record<string, string>> = {
  'local-healthy': 'a light request, and the local model is healthy',
  'server-configured': 'your inference server is configured',
  'heavy-effort': 'a heavy request',
  'does-not-fit-local': 'the request does not fit the local model',
  'heavy-but-local-only': 'a heavy request that must stay on this machine',
  'local-loading': 'the local model is still being loaded',
  'local-degraded': 'the local model does not generate as it should',
  'local-failed': 'the local model failed',
  'no-local-model': 'there is no local model but the embedded one',
  'mode-local-only': 'nothing may leave this machine',
  'mode-claude-only': 'Claude is asked for everything',
  'last-resort': 'nothing better may or can answer',
  'fell-back': 'who was asked before failed',
};

/** A reason in words; one that is not known, as it came. */
export function reasonInWords(reason: string): string {
  return REASONS[reason] ?? reason;
}

/**
 * The words, the icon and the colour of the status item.
 *
 * @param languageOff The language of the document at hand, if it is switched off.
 */
export function show(
  phase: Phase,
  status: Status | undefined,
  languageOff: string | undefined,
): Shown {
  switch (phase) {
    case 'stopped':
      return { text: '$(circle-slash) Tandem stopped', colour: undefined };
    case 'gave-up':
      return { text: '$(error) Tandem stopped', colour: 'error' };
    case 'starting':
    case 'waiting':
      return { text: '$(loading~spin) Tandem', colour: undefined };
    case 'running':
      return status === undefined
        ? { text: '$(loading~spin) Tandem', colour: undefined }
        : running(status, languageOff);
  }
}

function running({ state, backend }: Status, languageOff: string | undefined): Shown {
  const who = backend ?? 'nobody';
  if (CHOSEN.has(state)) {
    return { text: `$(debug-pause) Tandem ${state}`, colour: undefined };
  }
  if (languageOff !== undefined) {
    return { text: `$(debug-pause) Tandem off for ${languageOff}`, colour: undefined };
  }
  if (BUSY.has(state)) {
    return { text: `$(loading~spin) Tandem ${who} ${state}`, colour: undefined };
  }
  if (GOOD.has(state)) {
    return { text: `$(sparkle) Tandem ${who}`, colour: undefined };
  }
  return { text: `$(warning) Tandem ${who} ${state}`, colour: 'warning' };
}

/** What is told when the pointer rests on the item: lines with a name, and without one. */
export function describe(
  phase: Phase,
  status: Status | undefined,
): { readonly name?: string; readonly text: string }[] {
  if (phase !== 'running') {
    return [{ text: PHASES[phase] }];
  }
  if (status === undefined) {
    return [{ text: PHASES.starting }];
  }
  const { state, backend, model, reason, message } = status;
  return [
    { name: 'State', text: state },
    ...(backend === null ? [] : [{ name: 'Backend', text: backend }]),
    ...(model === null ? [] : [{ name: 'Model', text: model }]),
    ...(reason === null ? [] : [{ name: 'Why', text: reasonInWords(reason) }]),
    ...(message === undefined ? [] : [{ text: message }]),
  ];
}

const PHASES: Readonly<Record<Exclude<Phase, 'running'>, string>> = {
  stopped: 'The server does not run. Click to restart it.',
  starting: 'The server is being started.',
  waiting: 'The server crashed, and is started again in a moment.',
  'gave-up': 'The server could not be kept running. Click for its log, and to restart it.',
};
