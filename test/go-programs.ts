/**
 * Programs of other projects that tests need, built with Go from a module that names them as its
 * tools: once, into the user's cache.
 */
import { createHash } from 'node:crypto';
import { execFile } from 'node:child_process';
import {
  access,
  constants,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { isRunning, spawnSupervised } from './control-plane/process.ts';
import { waitFor } from './control-plane/wait.ts';

/** A program isn't on this machine, and there is no way to build it; or the build failed. */
export class ProgramsMissingError extends Error {
  readonly code = 'PROGRAMS_MISSING';
  override readonly name = 'ProgramsMissingError';
}

export interface FindOptions {
  /** One line of progress. */
  log: (line: string) => void;
  /** Default `process.env`. */
  env?: NodeJS.ProcessEnv;
}

/** What is built. */
export interface Recipe {
  /** What it is, for people: `Helm`. */
  title: string;
  /** Folder with a go.mod that names the programs as tools, and its go.sum. */
  module: string;
  /** Folder of the cache. */
  cache: string;
  /** How long it takes, for people. */
  duration: string;
  /** Default: no symbols. */
  ldflags?: string;
  /** Names of the programs as Go installs them. */
  programs: readonly string[];
  /** Files to keep beside the programs. */
  files?: readonly ModuleFile[];
  /** What else than a build there is, as the last sentence of an error. */
  otherWay?: string;
}

/** A file of a module that the go.mod requires; it is kept under its own name. */
export interface ModuleFile {
  /** Module path. */
  module: string;
  /** Within the module. */
  file: string;
}

const PROGRESS_EVERY_MS = 10_000;
/** No build takes so long: a folder of that age was left behind by a build that was killed. */
const ABANDONED_AFTER_MS = 60 * 60_000;

/**
 * The programs and files of a recipe, from the cache or built with Go.
 *
 * @returns the folder that holds them
 * @throws ProgramsMissingError when Go is missing, the build fails, or the module lacks something
 */
export async function builtPrograms(
  recipe: Recipe,
  { log, env = process.env }: FindOptions,
): Promise<string> {
  const build = await Build.of(recipe, log, env);
  await build.run();
  return build.folder;
}

class Build {
  /** In the cache. Its name changes with all that decides what is built. */
  readonly folder: string;
  readonly #recipe: Recipe;
  readonly #goVersion: string;
  readonly #log: (line: string) => void;
  readonly #env: NodeJS.ProcessEnv;

  private constructor(
    recipe: Recipe,
    { folder, goVersion }: { folder: string; goVersion: string },
    log: (line: string) => void,
    env: NodeJS.ProcessEnv,
  ) {
    this.folder = folder;
    this.#recipe = recipe;
    this.#goVersion = goVersion;
    this.#log = log;
    this.#env = env;
  }

  static async of(
    recipe: Recipe,
    log: (line: string) => void,
    env: NodeJS.ProcessEnv,
  ): Promise<Build> {
    const { module, cache, files = [] } = recipe;
    const goMod = await readFile(path.join(module, 'go.mod'), 'utf8');
    const key = createHash('sha256')
      .update(goMod)
      .update(await readFile(path.join(module, 'go.sum'), 'utf8'))
      .update(`${ldflagsOf(recipe)} ${os.platform()} ${os.arch()}`)
      .update(files.map(({ module: of, file }) => ` ${of}/${file}`).join(''));
    for (const file of await goFilesIn(module)) key.update(await readFile(file));
    const base = env['XDG_CACHE_HOME'] || path.join(os.homedir(), '.cache');
    const folder = path.join(base, 'automation-guardrails', cache, key.digest('hex').slice(0, 16));
    return new Build(
      recipe,
      { folder, goVersion: /^go (\d+\.\d+)/m.exec(goMod)?.[1] ?? '' },
      log,
      env,
    );
  }

  /**
   * Fills the folder by one rename, so that it is either absent or complete: a build that is cut
   * off leaves nothing half-made. Somebody else's build of the same is waited for; should two start
   * in the same instant, the first one to finish wins, and the other loses nothing but time.
   */
  async run(): Promise<void> {
    if ((await this.#missing()).length === 0) return;
    await mkdir(path.dirname(this.folder), { recursive: true });
    await this.#otherBuildsToEnd();
    if ((await this.#missing()).length === 0) return;

    const folder = await mkdtemp(`${this.folder}${BUILDING}${process.pid}-`);
    try {
      await this.#fill(folder);
      // A folder that lacks something can only stem from another hand; a rename needs it away.
      if ((await this.#missing()).length > 0) {
        await rm(this.folder, { recursive: true, force: true });
      }
      await rename(folder, this.folder).catch(async (error: unknown) => {
        if ((await this.#missing()).length > 0) throw error;
      });
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
    const missing = await this.#missing();
    if (missing.length === 0) return;
    throw new ProgramsMissingError(
      `The build of ${this.#recipe.module} left ${this.folder} without ${missing.join(', ')}.`,
    );
  }

  async #missing(): Promise<string[]> {
    const { programs, files = [] } = this.#recipe;
    const missing: string[] = [];
    for (const program of programs) {
      if (!(await isExecutable(path.join(this.folder, program)))) missing.push(program);
    }
    for (const file of files) {
      const isThere = await access(path.join(this.folder, nameOf(file))).then(
        () => true,
        () => false,
      );
      if (!isThere) missing.push(nameOf(file));
    }
    return missing;
  }

  async #otherBuildsToEnd(): Promise<void> {
    const { title } = this.#recipe;
    const started = performance.now();
    let nextLineAt = 0;
    await waitFor(
      `another build of ${title} to end`,
      async () => {
        if ((await this.#missing()).length === 0) return true;
        const builder = await builderOf(this.folder);
        if (builder === undefined) return true;
        const elapsed = performance.now() - started;
        if (elapsed >= nextLineAt) {
          this.#log(`Process ${builder} builds ${title}; waiting for it since ${inS(elapsed)}.`);
          nextLineAt += PROGRESS_EVERY_MS;
        }
        return false;
      },
      { timeoutMs: ABANDONED_AFTER_MS, intervalMs: 500 },
    );
  }

  async #fill(folder: string): Promise<void> {
    const { title, duration, programs, files = [], otherWay = '' } = this.#recipe;
    const go = await goOn(this.#env['PATH'] ?? '');
    if (go === undefined) {
      throw new ProgramsMissingError(
        `No ${title} on this machine (${programs.join(', ')}). To have it built, once, install Go ${this.#goVersion} or later and put it on the PATH. ${otherWay}`.trimEnd(),
      );
    }
    this.#log(`Building ${title} with Go: ${duration}; once.`);
    const started = performance.now();
    await this.#install(go, folder);
    for (const file of files) {
      const of = await this.#folderOf(go, file.module);
      await copyFile(path.join(of, file.file), path.join(folder, nameOf(file)));
    }
    this.#log(`Built ${title} in ${inS(performance.now() - started)}.`);
  }

  async #install(go: string, folder: string): Promise<void> {
    const { title, module, otherWay = '' } = this.#recipe;
    const child = spawnSupervised(
      go,
      // go.mod and go.sum count exactly as they are committed.
      ['install', '-v', '-mod=readonly', '-trimpath', '-ldflags', ldflagsOf(this.#recipe), 'tool'],
      module,
      { ...goEnvironment(this.#env), GOBIN: folder },
      'pipe',
    );
    const ended = new Promise<string | undefined>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) =>
        resolve(code === 0 ? undefined : (signal ?? `exit code ${code}`)),
      );
    });

    const started = performance.now();
    const lastLines: string[] = [];
    let packages = 0;
    const onLine = (line: string): void => {
      lastLines.push(line);
      if (lastLines.length > 20) lastLines.shift();
      if (!line.startsWith('go: ')) packages += 1;
    };
    for (const input of [child.stdout, child.stderr]) {
      if (input !== null) createInterface({ input }).on('line', onLine);
    }
    const report = async (): Promise<void> => {
      const done = await readdir(folder).catch(() => []);
      this.#log(
        `  ${inS(performance.now() - started)}, ${packages} packages done, now ${lastLines.at(-1) ?? 'starting'}; programs done: ${done.join(', ') || 'none yet'}`,
      );
    };
    const progress = setInterval(() => void report(), PROGRESS_EVERY_MS);
    try {
      const failure = await ended;
      if (failure === undefined) return;
      throw new ProgramsMissingError(
        `The build of ${title} with Go failed (${failure}); it needs Go ${this.#goVersion} or later and, the first time, a Go module proxy. ${otherWay} The last of what Go said:\n${lastLines.join('\n')}`,
      );
    } finally {
      clearInterval(progress);
    }
  }

  async #folderOf(go: string, module: string): Promise<string> {
    const args = ['mod', 'download', '-json', module];
    const { stdout } = await promisify(execFile)(go, args, {
      cwd: this.#recipe.module,
      env: goEnvironment(this.#env),
    });
    const { Dir } = JSON.parse(stdout) as { Dir?: string };
    if (Dir !== undefined) return Dir;
    throw new ProgramsMissingError(`Go has no folder for ${module}.`);
  }
}

/** Programs of the module itself. */
async function goFilesIn(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true });
  return names
    .filter((name) => name.endsWith('.go'))
    .toSorted()
    .map((name) => path.join(folder, name));
}

function ldflagsOf({ ldflags = '-s -w' }: Recipe): string {
  return ldflags;
}

function nameOf({ file }: ModuleFile): string {
  return path.basename(file);
}

function goEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return {
    ...env,
    CGO_ENABLED: '0',
    // The toolchain that is there; none is downloaded.
    GOTOOLCHAIN: 'local',
    GOWORK: 'off',
    // Go refuses GOBIN when it builds for another platform.
    GOOS: undefined,
    GOARCH: undefined,
  };
}

/** Marks a folder beside the cache's that a build fills; the builder's process id follows. */
const BUILDING = '.building-';

/** The process that builds `target` now, if any. Clears away what killed builds left behind. */
async function builderOf(target: string): Promise<number | undefined> {
  const parent = path.dirname(target);
  let builder: number | undefined;
  for (const name of await readdir(parent)) {
    const [, pid] = name.split(BUILDING);
    if (pid === undefined) continue;
    const folder = path.join(parent, name);
    const info = await stat(folder).catch(() => undefined);
    if (info === undefined) continue;
    // Somebody in another container, whose process we cannot see, may fill it: age decides.
    const isAbandoned = Date.now() - info.mtimeMs > ABANDONED_AFTER_MS;
    if (isAbandoned) await rm(folder, { recursive: true, force: true });
    else if (folder.startsWith(target) && isRunning(Number.parseInt(pid, 10))) {
      builder = Number.parseInt(pid, 10);
    }
  }
  return builder;
}

/** Whether a path is a file that this user may run. */
export async function isExecutable(file: string): Promise<boolean> {
  try {
    await access(file, constants.X_OK);
    return (await stat(file)).isFile();
  } catch {
    return false;
  }
}

async function goOn(searchPath: string): Promise<string | undefined> {
  for (const folder of searchPath.split(path.delimiter)) {
    const file = path.resolve(folder, 'go');
    if (folder !== '' && (await isExecutable(file))) return file;
  }
  return undefined;
}

function inS(milliseconds: number): string {
  return `${Math.round(milliseconds / 1000)} s`;
}
