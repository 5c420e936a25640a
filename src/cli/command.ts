import { setTimeout as delay } from 'node:timers/promises';
import type { ParseArgsOptionDescriptor } from 'node:util';
import type { KubeClient } from '../runtime/client.ts';
import { ApiError } from '../runtime/errors.ts';
import type { ServerInfo } from './server.ts';

/** Exit codes: done; the cluster said no or isn't there yet; the command line is wrong. */
export const exit = { ok: 0, failed: 1, usage: 2 } as const;

/** The command line is wrong; the message says how. */
export class UsageError extends Error {
  readonly code = 'USAGE';
  override readonly name = 'UsageError';
}

/** One of `kubectl guardrails …`. */
export interface Command {
  readonly name: string;
  /** For `--help`: how it is written, and what it does. */
  readonly usage: readonly (readonly [form: string, meaning: string])[];
  /** Beside those that every command takes. An option of the same name means the same everywhere. */
  readonly options: Readonly<Record<string, ParseArgsOptionDescriptor>>;
  /** `--output` is a file, not a format. */
  readonly outputIsFile?: boolean;
  /** Its arguments aren't all names of automations: it reads them itself. */
  readonly readsNames?: boolean;
  /** How many arguments it takes at most; 1 unless said. */
  readonly maxNames?: number;
  /** Whether it asks no API server with these arguments, and so needs no kubeconfig. */
  readonly isOffline?: (names: readonly string[]) => boolean;
  /** @returns the exit code */
  run(session: Session): Promise<number>;
}

/** What a command works with. */
export interface Session {
  client: KubeClient;
  stdout: (line: string) => void;
  stderr: (line: string) => void;
  /** Of `--namespace`, or else of the context. */
  namespace: string;
  /** The arguments behind the command; of `awf/NAME` the name alone, unless the command reads that. */
  names: readonly string[];
  /** @returns the text of an option; `undefined` where it isn't given */
  option(name: string): string | undefined;
  /** @returns whether a switch is on; `otherwise` where it isn't given */
  flag(name: string, otherwise?: boolean): boolean;
  /** Milliseconds that `--timeout` gives. */
  timeoutMs: number;
  /** `table`, or what `--output` says; a file, where the command says so. */
  output: string;
  /** Asks the API server for its version and its time. */
  server(): Promise<ServerInfo>;
}

/** Of commands that print what they found. */
export const outputOptions = { output: { type: 'string', short: 'o' } } as const;

/** @throws UsageError that names the right form of the command */
export function required(value: string | undefined, form: string): string {
  if (value === undefined) throw new UsageError(`a name is missing: kubectl guardrails ${form}`);
  return value;
}

/** @throws UsageError where no reason is given, or a blank one */
export function reasonOf(session: Session, form: string): string {
  const reason = session.option('reason');
  if (reason === undefined || reason.trim() === '') {
    throw new UsageError(`a reason is missing: kubectl guardrails ${form}`);
  }
  return reason;
}

/** Asks until it is done. @returns whether it was, within `--timeout` */
export async function follow(
  { timeoutMs }: Pick<Session, 'timeoutMs'>,
  isDone: () => Promise<boolean>,
): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (!(await isDone())) {
    if (performance.now() > deadline) return false;
    await delay(200);
  }
  return true;
}

/** Whether the user lacks the right. */
export function isForbidden(error: unknown): boolean {
  return error instanceof ApiError && error.status === 403;
}
