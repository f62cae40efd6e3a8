// What the server says of itself (`tandem/status`), and how it is shown in a few words.

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

/** What the status item shows. */
export interface Shown {
  readonly text: string;
  readonly colour: 'warning' | 'error' | undefined;
}

const BUSY = new Set(['loading', 'probing', 'downloading']);
const READY = new Set(['healthy', 'unloaded']);

/** The words and the icon of the status item. */
export function show(phase: Phase, status: Status | undefined): Shown {
  switch (phase) {
    case 'stopped':
      return { text: '$(circle-slash) Tandem stopped', colour: undefined };
    case 'starting':
    case 'waiting':
      return { text: '$(loading~spin) Tandem', colour: undefined };
    case 'gave-up':
      return { text: '$(error) Tandem stopped', colour: 'error' };
    case 'running':
      return running(status);
  }
}

function running(status: Status | undefined): Shown {
  if (status === undefined) {
    return { text: '$(loading~spin) Tandem', colour: undefined };
  }
  const { state, backend } = status;
  if (state === 'paused' || state === 'disabled') {
    return { text: `$(debug-pause) Tandem ${state}`, colour: undefined };
  }
  if (BUSY.has(state)) {
    return { text: `$(loading~spin) Tandem ${backend ?? ''} ${state}`, colour: undefined };
  }
  if (READY.has(state)) {
    return { text: `$(sparkle) Tandem ${backend ?? 'ready'}`, colour: undefined };
  }
  return { text: `$(warning) Tandem ${backend ?? ''} ${state}`, colour: 'warning' };
}
