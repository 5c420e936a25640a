import { existsSync } from 'node:fs';
import { cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { runProgram } from '../install/helm.ts';
import { kubectlOk, waitUntilEstablished } from '../operator/cluster.ts';

const root = path.dirname(path.dirname(import.meta.dirname));

let controlPlane: ControlPlane;

beforeAll(async () => {
  controlPlane = await startControlPlane();
  const crds = path.join(root, 'config/crds');
  await kubectlOk(controlPlane, ['apply', '--server-side', '-k', crds]);
  await waitUntilEstablished(controlPlane, ['crd', '--all']);
});

afterAll(async () => {
  await controlPlane?.stop();
});

it('has what the steps of the Dockerfile build, and it starts', async () => {
  const dockerfile = await readFile(path.join(root, 'Dockerfile'), 'utf8');
  const steps = [...dockerfile.matchAll(/^(COPY|RUN) (?!--from)(.+)$/gm)].map(
    ([, instruction, rest]) => ({ instruction, rest: rest ?? '' }),
  );
  const folder = await mkdtemp(path.join(os.tmpdir(), 'automation-guardrails-image-'));
  try {
    for (const { instruction, rest } of steps) {
      if (instruction === 'COPY') {
        const words = rest.split(' ');
        const target = words.pop() ?? '';
        for (const source of words) {
          const to = target === './' ? path.basename(source) : target;
          await cp(path.join(root, source), path.join(folder, to), { recursive: true });
        }
      } else {
        const { code, output } = await runProgram('sh', controlPlane, ['-c', rest], folder);
        expect(code, `${rest}\n${output}`).toBe(0);
      }
    }
    const bom = JSON.parse(await readFile(path.join(folder, 'sbom.cdx.json'), 'utf8')) as {
      bomFormat: string;
      components: { name: string; version: string }[];
    };
    expect(bom.bomFormat).toBe('CycloneDX');
    const listed = bom.components.map(({ name }) => name).toSorted();
    expect(listed).toContain('@kubernetes/client-node');
    // What is installed is listed, and nothing else is.
    for (const name of listed) {
      const installed = path.join(folder, 'node_modules', name, 'package.json');
      expect(existsSync(installed), name).toBe(true);
    }
    expect(listed).not.toContain('vitest');

    const { code, output } = await runProgram(
      process.execPath,
      controlPlane,
      ['dist/main.js', '--version'],
      folder,
    );
    expect(code, output).toBe(0);
    expect(output.trim()).toMatch(/^\d+\.\d+\.\d+$/);
    const cli = await runProgram(
      process.execPath,
      controlPlane,
      ['dist/cli/main.js', 'status', '-A'],
      folder,
    );
    expect(cli.output).toContain('No Workflow');
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
