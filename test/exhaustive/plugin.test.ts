import { createHash } from 'node:crypto';
import { mkdtemp, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runProgram } from '../install/helm.ts';
import { findTools, type Tools } from '../install/tools.ts';

const root = path.dirname(path.dirname(import.meta.dirname));
const url = 'https://example.com/releases/kubectl-guardrails.tar.gz';

let tools: Tools;
let folder: string;

beforeAll(async () => {
  tools = await findTools((line) => console.log(line));
  folder = await mkdtemp(path.join(os.tmpdir(), 'automation-guardrails-plugin-'));
}, 600_000);

afterAll(() => rm(folder, { recursive: true, force: true }));

/** Runs a line with variables of its own; nobody's kubeconfig is near. */
function sh(line: string, env: Record<string, string> = {}): ReturnType<typeof runProgram> {
  const variables = Object.entries(env).map(([name, value]) => `${name}='${value}'`);
  const nowhere = { kubeconfigPath: path.join(folder, 'no-kubeconfig') };
  return runProgram('/bin/sh', nowhere, ['-c', `${variables.join(' ')} ${line}`]);
}

async function pack(name: string): Promise<{ archive: string; manifest: string; sum: string }> {
  const out = path.join(folder, name);
  const command = `node src/release/plugin.ts --url ${url} --homepage https://example.com --out ${out}`;
  const bin = path.join(root, 'node_modules/.bin');
  const { code, output } = await sh(command, { PATH: `${bin}:${process.env['PATH'] ?? ''}` });
  expect(code, output).toBe(0);
  const archive = path.join(out, 'kubectl-guardrails.tar.gz');
  const sum = createHash('sha256')
    .update(await readFile(archive))
    .digest('hex');
  return { archive, manifest: path.join(out, 'guardrails.yaml'), sum };
}

describe('kubectl guardrails, packed', () => {
  it('is installed by Krew, runs, and is the same each time it is packed', async () => {
    const { archive, manifest, sum } = await pack('first');
    expect(await readFile(manifest, 'utf8')).toContain(`sha256: ${sum}`);
    const checked = await sh(`${tools.krewValidator} -manifest ${manifest} -skip-install`);
    expect(checked.code, checked.output).toBe(0);

    const krewRoot = path.join(folder, 'krew');
    const install = `${tools.krew} install --manifest=${manifest} --archive=${archive}`;
    const installed = await sh(install, { KREW_ROOT: krewRoot });
    expect(installed.code, installed.output).toBe(0);
    const plugin = path.join(krewRoot, 'bin/kubectl-guardrails');
    const bin = path.join(root, 'node_modules/.bin');
    const ran = await sh(`${plugin} --help`, { PATH: `${bin}:/usr/bin:/bin` });
    expect(ran.code, ran.output).toBe(0);
    expect(ran.output).toContain('kill');

    expect((await pack('second')).sum).toBe(sum);
  });

  it('says what it needs where Node is missing or too old', async () => {
    const plugin = path.join(folder, 'krew/bin/kubectl-guardrails');
    const bin = path.join(folder, 'old');
    await mkdir(bin);
    for (const tool of ['sed', 'readlink', 'dirname']) {
      const found = (await sh(`command -v ${tool}`)).output.trim();
      await symlink(found, path.join(bin, tool));
    }
    const missing = await sh(`${plugin} --version`, { PATH: bin });
    expect(missing.code).toBe(1);
    expect(missing.output).toContain('needs Node 24 or later');
    await writeFile(path.join(bin, 'node'), '#!/bin/sh\necho v22.11.0\n', { mode: 0o755 });
    const old = await sh(`${plugin} --version`, { PATH: bin });
    expect(old.code).toBe(1);
    expect(old.output).toContain('needs Node 24 or later');
  });
});
