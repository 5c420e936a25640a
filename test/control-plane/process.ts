import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { Socket } from 'node:net';

/** One program to run, and where its output goes. */
export interface ProcessOptions {
  readonly name: string;
  readonly program: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  /** Standard output and error are appended here. */
  readonly logPath: string;
}

/**
 * Becomes the program, and leaves a child behind that kills it and its children when the pipe from us,
 * descriptor 3, closes without a word: that is what the kernel does with our end when we are killed.
 * The pid stays the same through `exec`, so the pid that we know is the program's own.
 */
const supervise = '(read -r _ <&3 || kill -KILL -$$) & exec "$@" 3<&-';

/**
 * Removes a folder when the pipe from us closes without a word. One pass may lose against programs
 * that die in the same moment and still write.
 */
const clearAway =
  'read -r _ <&3 && exit 0; for _ in 1 2 3 4 5 6 7 8 9 10; ' +
  'do rm -rf -- "$1"; sleep 0.3; [ -e "$1" ] || exit 0; done';

/**
 * A running program that cannot outlive this process, however this process ends. It doesn't keep
 * this process alive either. It has a session of its own: a Ctrl-C in the terminal reaches this
 * process only, which then stops its programs in an order that works.
 */
export class SupervisedProcess {
  readonly name: string;
  readonly logPath: string;
  /** Aborted when the program has ended, with an error that says how. */
  readonly ended: AbortSignal;
  readonly #child: ChildProcess;
  readonly #exit: Promise<void>;
  #isStopping = false;

  constructor({ name, program, args, cwd, env, logPath }: ProcessOptions) {
    this.name = name;
    this.logPath = logPath;
    const log = openSync(logPath, 'a', 0o600);
    try {
      this.#child = spawnSupervised(program, args, cwd, env, log);
    } finally {
      closeSync(log);
    }
    const ended = new AbortController();
    this.ended = ended.signal;
    this.#exit = new Promise((resolve) => {
      const onEnd = (how: string): void => {
        ended.abort(new Error(`${name} ended: ${how}`));
        resolve();
      };
      this.#child.once('exit', (code, signal) => onEnd(signal ?? `exit code ${code}`));
      this.#child.once('error', (error) => onEnd(error.message));
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Whether its end was asked for. */
  get isStopping(): boolean {
    return this.#isStopping;
  }

  /** Sends a signal, unless it has ended. Synchronous, so it works in an `exit` handler. */
  signal(signal: NodeJS.Signals): void {
    if (!this.ended.aborted) this.#child.kill(signal);
  }

  /**
   * Ends it, and returns when it is gone. Idempotent.
   *
   * @param signal what to send first
   * @param graceMs milliseconds until SIGKILL follows
   */
  async stop(signal: NodeJS.Signals, graceMs: number): Promise<void> {
    this.#isStopping = true;
    const timer = setTimeout(() => this.signal('SIGKILL'), graceMs);
    try {
      this.signal(signal);
      await this.#exit;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The last lines of its log. */
  logTail(lines = 20): string {
    return readFileSync(this.logPath, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
  }
}

/** Removes a folder if this process ends without a call of {@link FolderJanitor.dismiss}. */
export class FolderJanitor {
  readonly #child: ChildProcess;
  readonly #exit: Promise<void>;

  /** @param folder absolute path; it goes with everything in it */
  constructor(folder: string) {
    this.#child = spawnWatched(clearAway, [folder], '/', { PATH: process.env['PATH'] });
    this.#exit = new Promise((resolve) => {
      this.#child.once('exit', () => resolve());
      this.#child.once('error', () => resolve());
    });
  }

  /** Ends the janitor without touching the folder. Idempotent. */
  async dismiss(): Promise<void> {
    release(this.#child);
    this.#child.ref();
    await this.#exit;
  }
}

/** Whether a process runs: a dead one that its parent has not collected yet doesn't. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    // No such file system, or the process ended in between: the next look will tell.
    return true;
  }
}

/**
 * Starts a program that is killed, with its children, when this process ends, however that ends. It
 * doesn't keep this process alive.
 *
 * @param program absolute path: a wrong one shows as exit code 127
 * @param output a file descriptor for both standard output and error, or how to treat the two
 */
export function spawnSupervised(
  program: string,
  args: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv,
  output: number | 'pipe',
): ChildProcess {
  const child = spawnWatched(supervise, [program, ...args], cwd, env, output);
  child.once('exit', () => release(child));
  return child;
}

function spawnWatched(
  script: string,
  args: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv,
  output: number | 'pipe' | 'ignore' = 'ignore',
): ChildProcess {
  const child = spawn('/bin/sh', ['-c', script, 'sh', ...args], {
    cwd,
    env,
    detached: true,
    // Not standard input: Node closes that by itself when the program ends, before our word.
    stdio: ['ignore', output, output, 'pipe'],
  });
  const pipe = pipeTo(child);
  // The other end may be gone before our word arrives: then there is nobody left to tell.
  pipe?.on('error', () => undefined);
  pipe?.unref();
  child.unref();
  return child;
}

/** Tells the watcher at the other end of the pipe that all is well. */
function release(child: ChildProcess): void {
  pipeTo(child)?.end('done\n');
}

function pipeTo(child: ChildProcess): Socket | undefined {
  const pipe = child.stdio[3];
  return pipe instanceof Socket ? pipe : undefined;
}
