import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';

/**
 * Runs the program and ends it when standard input closes: also when this process dies by SIGKILL,
 * which no handler can catch.
 */
const supervisor =
  'exec 3<&0; "$@" </dev/null 3<&- & child=$!; ' +
  '(cat <&3 >/dev/null; kill "$child" 2>/dev/null) & ' +
  'wait "$child"';

/** A program of the control plane, which never outlives this process. */
export class SupervisedProcess {
  readonly name: string;
  readonly logFile: string;
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;
  #hasExited = false;

  constructor(name: string, program: string, args: readonly string[], logFile: string) {
    this.name = name;
    this.logFile = logFile;
    const log = openSync(logFile, 'a');
    this.#child = spawn('sh', ['-c', supervisor, name, program, ...args], {
      stdio: ['pipe', log, log],
      // A group of its own: a Ctrl-C in the terminal reaches this process only, which then stops
      // the parts in their order.
      detached: true,
    });
    closeSync(log);
    this.#child.stdin?.on('error', () => undefined);
    this.#exited = new Promise((resolve) => {
      const done = (): void => {
        this.#hasExited = true;
        this.#child.stdin?.destroy();
        resolve();
      };
      this.#child.once('exit', done);
      this.#child.once('error', done);
    });
  }

  get hasExited(): boolean {
    return this.#hasExited;
  }

  /** The last lines of its log, for an error message. */
  async logTail(lines = 20): Promise<string> {
    const text = await readFile(this.logFile, 'utf8').catch(() => '');
    return text.trimEnd().split('\n').slice(-lines).join('\n');
  }

  /** Asks it to end (SIGTERM), and kills it after `graceMs`. Idempotent. */
  async stop(graceMs = 10_000): Promise<void> {
    if (this.#hasExited) return;
    this.#child.stdin?.destroy();
    const timer = setTimeout(() => this.kill(), graceMs);
    await this.#exited;
    clearTimeout(timer);
  }

  /** SIGKILL, at once, to it and whatever it started. */
  kill(): void {
    if (this.#child.pid === undefined) return;
    try {
      process.kill(-this.#child.pid, 'SIGKILL');
    } catch {
      // It ended in the meantime.
    }
  }
}
