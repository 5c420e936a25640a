import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ProgramsMissingError } from '../go-programs.ts';
import { builtFrom, findBinaries } from './binaries.ts';
import { isRunning } from './process.ts';
import { waitFor } from './wait.ts';

const programs = [
  'kube-apiserver',
  'kube-controller-manager',
  'kube-scheduler',
  'kubectl',
  'kwok',
] as const;

let folder: string;
let assets: string;
let calls: string;
let env: NodeJS.ProcessEnv;
let lines: string[];
const log = (line: string): void => {
  lines.push(line);
};

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'automation-guardrails-binaries-'));
  assets = path.join(folder, 'assets');
  calls = path.join(folder, 'calls');
  await mkdir(assets);
  await mkdir(path.join(folder, 'bin'));
  lines = [];
  env = {
    XDG_CACHE_HOME: path.join(folder, 'cache'),
    // Only what stands there is found: neither this machine's Go nor its programs.
    PATH: path.join(folder, 'bin'),
  };
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

async function writeProgram(file: string, script = ''): Promise<void> {
  await writeFile(file, `#!/bin/sh\n${script}\n`);
  await chmod(file, 0o755);
}

/** A `go` that notes how it was called, and then does as the script says. */
async function installGo(script: string): Promise<void> {
  const note = `echo "$PWD $GOTOOLCHAIN $*" >> ${calls}`;
  const lookup = `PATH=${process.env['PATH']}`;
  await writeProgram(path.join(folder, 'bin', 'go'), `${lookup}\n${note}\n${script}`);
}

const buildAll = `for name in server ${programs.join(' ')}; do
  echo "example.com/$name" >&2
  printf '#!/bin/sh\\n' > "$GOBIN/$name"
  chmod +x "$GOBIN/$name"
done`;

async function callsOfGo(): Promise<string[]> {
  return (await readFile(calls, 'utf8')).trim().split('\n');
}

function cacheEntries(): Promise<string[]> {
  return readdir(path.join(folder, 'cache', 'automation-guardrails', 'control-plane'));
}

describe('findBinaries', () => {
  test('prefers KUBEBUILDER_ASSETS to everything else', async () => {
    await installGo(buildAll);
    for (const name of ['etcd', ...programs]) await writeProgram(path.join(assets, name));
    const found = await findBinaries({ log, env: { ...env, KUBEBUILDER_ASSETS: assets } });
    expect(found.etcd).toBe(path.join(assets, 'etcd'));
    expect(found.apiServer).toBe(path.join(assets, 'kube-apiserver'));
    await expect(callsOfGo()).rejects.toThrow('ENOENT');
  });

  test('names what KUBEBUILDER_ASSETS lacks, and looks nowhere else', async () => {
    await installGo(buildAll);
    await writeProgram(path.join(assets, 'etcd'));
    const search = findBinaries({ log, env: { ...env, KUBEBUILDER_ASSETS: assets } });
    await expect(search).rejects.toThrow(/lacks kube-apiserver, .*kwok\. .*unset the variable/);
    await expect(callsOfGo()).rejects.toThrow('ENOENT');
  });

  test('builds once with the Go that is there, then takes the cache', async () => {
    await installGo(buildAll);
    const built = await findBinaries({ log, env });
    expect(path.basename(built.etcd)).toBe('server');
    expect(await findBinaries({ log, env })).toEqual(built);

    const [call, ...more] = await callsOfGo();
    expect(more).toEqual([]);
    expect(call).toContain(`${import.meta.dirname} local install`);
    expect(call).toContain('-mod=readonly');
    expect(call).toMatch(/version\.gitVersion=v1\.\d+\.\d+ .*gitMajor=1 .*gitMinor=\d+ tool$/);
    expect(lines[0]).toMatch(/about 5 minutes/);
    expect(await cacheEntries()).toEqual([path.basename(path.dirname(built.kwok))]);
  });

  test('without Go, names the ways out', async () => {
    const search = findBinaries({ log, env });
    await expect(search).rejects.toThrow(ProgramsMissingError);
    await expect(search).rejects.toThrow(/install Go 1\.\d+ or later.*KUBEBUILDER_ASSETS.*kubectl/);
    expect(lines).toEqual([]);
    expect(await cacheEntries()).toEqual([]);
  });

  test('a failed build says what Go said, and leaves nothing behind', async () => {
    await installGo(`touch "$GOBIN/kubectl"; echo 'go: go.mod requires go >= 1.26.0' >&2; exit 1`);
    const search = findBinaries({ log, env });
    await expect(search).rejects.toThrow(/exit code 1.*\n.*requires go >= 1\.26\.0/);
    expect(await cacheEntries()).toEqual([]);
  });

  test('a second search waits for the build of the first', async () => {
    const gate = path.join(folder, 'gate');
    await installGo(`until [ -e ${gate} ]; do sleep 0.05; done\n${buildAll}`);
    const first = findBinaries({ log, env });
    await waitFor('the build', () => lines.length > 0);
    const second = findBinaries({ log, env });
    await waitFor('the second to wait', () =>
      lines.some((line) => line.startsWith(`Process ${process.pid} builds`)),
    );
    await writeFile(gate, '');
    expect(await second).toEqual(await first);
    expect(await callsOfGo()).toHaveLength(1);
  });

  test('a build ends with the process that asked for it, and fills no cache', async () => {
    const pidOfGo = path.join(folder, 'pid');
    await installGo(`echo $$ > ${pidOfGo}\nsleep 600`);
    const module = JSON.stringify(path.join(import.meta.dirname, 'binaries.ts'));
    const script = `const { findBinaries } = await import(${module});
      await findBinaries({ log: () => {}, env: ${JSON.stringify(env)} });`;
    const builder = spawn(process.execPath, ['--input-type=module', '--eval', script]);
    const pid = await waitFor('the build', async () => Number(await readFile(pidOfGo, 'utf8')));
    builder.kill('SIGKILL');
    await waitFor('the build to end', () => !isRunning(pid));
    expect((await cacheEntries()).every((name) => name.includes('.building-'))).toBe(true);
  });

  test('a build that was killed holds up nobody', async () => {
    await installGo(buildAll);
    const { kwok } = await findBinaries({ log, env });
    const cached = path.dirname(kwok);
    const builder = spawn('/bin/sh', ['-c', 'exit 0']);
    await once(builder, 'exit');
    await rm(cached, { recursive: true });
    await mkdir(`${cached}.building-${builder.pid}-abcdef`);
    await findBinaries({ log, env });
    expect(await callsOfGo()).toHaveLength(2);
  });
});

test('builtFrom builds some of the programs from another module', async () => {
  await installGo(buildAll);
  const other = path.join(folder, 'module');
  await mkdir(other);
  await writeFile(path.join(other, 'go.sum'), '');
  await writeFile(path.join(other, 'go.mod'), 'go 1.25.0\nrequire k8s.io/kubernetes v1.35.4\n');
  const found = await builtFrom({ module: other, log, env }, ['apiServer', 'controllerManager']);
  expect(path.basename(found.controllerManager)).toBe('kube-controller-manager');
  expect((await callsOfGo())[0]).toContain('gitVersion=v1.35.4');
});
