// What the menu of the status item offers. Pure: each entry names the command that it runs.

import type { Status } from './status';
import { reasonInWords } from './status';
import type { Phase } from './supervisor';

/** What the menu depends on. */
export interface Situation {
  readonly phase: Phase;
  readonly status: Status | undefined;
  readonly paused: boolean;
  /** The language of the document at hand, where there is one, and whether it is paused here. */
  readonly language: { readonly id: string; readonly paused: boolean } | undefined;
  /** The mode in force, and whether it is VS Code's setting that says `local-only`. */
  readonly mode: string | undefined;
  readonly localOnlySetting: boolean;
  readonly hasKey: boolean;
}

export interface Entry {
  readonly label: string;
  readonly detail?: string;
  /** What it runs; an entry that only tells something has none. */
  readonly command?: string;
  readonly separator?: true;
}

/** The title above the entries. */
export function title({ phase, status }: Situation): string {
  if (phase !== 'running' || status === undefined) {
    return `Tandem: ${phase === 'gave-up' ? 'stopped' : phase}`;
  }
  const who = status.backend === null ? '' : ` · ${status.backend} (${status.model ?? '?'})`;
  const why = status.reason === null ? '' : ` · ${reasonInWords(status.reason)}`;
  return `Tandem: ${status.state}${who}${why}`;
}

/** The entries, in their order. */
export function entries(situation: Situation): Entry[] {
  const runs = situation.phase === 'running';
  return [
    ...(runs ? pausing(situation) : []),
    { label: 'Tandem', separator: true },
    ...(runs
      ? [
          {
            label: '$(list-ordered) Routes',
            detail: 'The last requests: who answered, and why',
            command: 'tandem.routes',
          },
        ]
      : []),
    {
      label: '$(pulse) Doctor',
      detail: 'Tries every backend; each failure ends with the next step',
      command: 'tandem.doctor',
    },
    { label: '$(output) Log of this window', command: 'tandem.showLog' },
    {
      label: '$(output) Log of the daemon',
      detail: 'It holds the models for all windows',
      command: 'tandem.showDaemonLog',
    },
    { label: '$(debug-restart) Restart', command: 'tandem.restart' },
    situation.hasKey
      ? { label: '$(key) Remove the Claude API key', command: 'tandem.removeApiKey' }
      : { label: '$(key) Set a Claude API key', command: 'tandem.setApiKey' },
    { label: '$(gear) Settings', command: 'tandem.openSettings' },
  ];
}

function pausing({ paused, language, mode, localOnlySetting }: Situation): Entry[] {
  return [
    paused
      ? { label: '$(play) Resume in this window', command: 'tandem.resume' }
      : { label: '$(debug-pause) Pause in this window', command: 'tandem.pause' },
    ...(language === undefined
      ? []
      : [
          language.paused
            ? { label: `$(play) Resume for ${language.id}`, command: 'tandem.toggleLanguage' }
            : {
                label: `$(debug-pause) Pause for ${language.id}`,
                command: 'tandem.toggleLanguage',
              },
        ]),
    localOnly(mode, localOnlySetting),
  ];
}

function localOnly(mode: string | undefined, setting: boolean): Entry {
  if (setting) {
    return {
      label: '$(unlock) Local only: off',
      detail: 'Your own configuration file then says what may leave this machine',
      command: 'tandem.toggleLocalOnly',
    };
  }
  return mode === 'local-only'
    ? {
        label: '$(lock) Local only',
        detail: 'Your own configuration file, the project’s, or a flag says so',
      }
    : {
        label: '$(lock) Local only: on',
        detail: 'Nothing leaves this machine, in all windows',
        command: 'tandem.toggleLocalOnly',
      };
}
