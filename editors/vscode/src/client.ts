// The language client: Microsoft's, made to show no messages of its own, since each of its own would
// come without a next step, and to leave commands to this extension.

import type { LogOutputChannel } from 'vscode';
import {
  CloseAction,
  ErrorAction,
  LanguageClient,
  type DynamicFeature,
  type LanguageClientOptions,
  type ServerOptions,
  type StaticFeature,
} from 'vscode-languageclient/node';

/** What the language client needs to know. */
export interface ClientParts {
  readonly log: LogOutputChannel;
  readonly connect: Extract<ServerOptions, () => unknown>;
  /** The settings for the server. */
  readonly settings: () => unknown;
}

/** Documents that are helped with: those on this machine, and new ones. */
const DOCUMENTS = [{ scheme: 'file' }, { scheme: 'untitled' }];

export class TandemClient extends LanguageClient {
  constructor(parts: ClientParts) {
    super('tandem', 'Tandem', parts.connect, options(parts));
  }

  /**
   * The server's commands are those of this extension, which are there while no server is: the
   * client's own would come and go with it.
   */
  override registerFeature(feature: StaticFeature | DynamicFeature<unknown>): void {
    if (
      !('registrationType' in feature) ||
      feature.registrationType.method !== 'workspace/executeCommand'
    ) {
      super.registerFeature(feature);
    }
  }

  override error(message: string, data?: unknown): void {
    super.error(message, data, false);
  }

  override warn(message: string, data?: unknown): void {
    super.warn(message, data, false);
  }

  override info(message: string, data?: unknown): void {
    super.info(message, data, false);
  }
}

function options(parts: ClientParts): LanguageClientOptions {
  return {
    documentSelector: DOCUMENTS,
    outputChannel: parts.log,
    // Without this, the client shows the error of a failed start.
    initializationFailedHandler: () => false,
    errorHandler: {
      // Of reading, the server's owner hears itself; after one of writing, the server's end follows.
      error: () => ({ action: ErrorAction.Continue, handled: true }),
      // The supervisor starts servers, each with a client of its own.
      closed: () => ({ action: CloseAction.DoNotRestart, handled: true }),
    },
    middleware: {
      workspace: {
        configuration: ({ items }) =>
          items.map(({ section }) => (section === 'tandem' ? parts.settings() : null)),
      },
    },
  };
}
