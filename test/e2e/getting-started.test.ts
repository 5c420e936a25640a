import { spawn } from 'node:child_process';
import { chmod, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findBinaries } from '../control-plane/binaries.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { findHelm } from '../install/helm.ts';
import {
  getObject,
  kubectlOk,
  serviceAccountKubeconfig,
  waitForCondition,
} from '../operator/cluster.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const root = path.dirname(path.dirname(import.meta.dirname));

let controlPlane: ControlPlane;
let bin: string;
let operator: OperatorProcess | undefined;

beforeAll(async () => {
  const log = (line: string): void => console.log(line);
  const [started, helm, { kubectl }] = await Promise.all([
    startControlPlane({ controllerManagerQps: 500 }),
    findHelm(log),
    findBinaries({ log }),
  ]);
  controlPlane = started;
  bin = path.join(controlPlane.dataDir, 'bin');
  await mkdir(bin);
  await symlink(helm, path.join(bin, 'helm'));
  await symlink(kubectl, path.join(bin, 'kubectl'));
  const plugin = path.join(bin, 'kubectl-guardrails');
  const main = path.join(root, 'src/cli/main.ts');
  await writeFile(plugin, `#!/bin/sh\nexec "${process.execPath}" "${main}" "$@"\n`);
  await chmod(plugin, 0o755);
}, 600_000);

afterAll(async () => {
  operator?.kill();
  await controlPlane?.stop();
});

/** Runs a line as it stands on the page. */
function shell(line: string): Promise<{ code: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn('sh', ['-c', line], {
      cwd: root,
      env: {
        ...process.env,
        KUBECONFIG: controlPlane.kubeconfigPath,
        PATH: `${bin}${path.delimiter}${process.env['PATH'] ?? ''}`,
      },
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk: string) => (output += chunk));
    }
    child.once('error', reject);
    child.once('close', (code) => resolve({ code: code ?? 1, output }));
  });
}

async function replicasOf(name: string): Promise<number | undefined> {
  const deployment = await getObject<{ spec: { replicas: number } }>(
    controlPlane,
    'deployment',
    name,
    'finance',
  );
  return deployment?.spec.replicas;
}

describe('getting started', () => {
  it('works as the page says, in fewer than 15 commands, and leaves nothing of ours', async () => {
    const page = await readFile(path.join(root, 'docs/getting-started.md'), 'utf8');
    const commands = [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].flatMap(([, block = '']) =>
      block.trim().split('\n'),
    );
    expect(commands.length).toBeLessThan(15);
    const before = 3;
    /** What happens beside a command, or has to be so after it. */
    const after: Record<string, (output: string) => Promise<void>> = {
      // No container runs here: the operator does, beside the cluster, with its own rights.
      'rollout status': async () => {
        const account = { namespace: 'automation-guardrails', name: 'automation-guardrails' };
        const kubeconfigPath = await serviceAccountKubeconfig(controlPlane, account);
        operator = await startOperator({ kubeconfigPath });
        const canary = { kind: 'ksw', name: 'canary', namespace: 'automation-guardrails-probe' };
        await waitForCondition(controlPlane, canary, 'Ready');
      },
      'guardrails tree': async (output) => {
        expect(output).toContain('Deployment/invoice-poster');
        expect(await replicasOf('invoice-poster')).toBe(before);
      },
      'guardrails kill': async (output) => {
        expect(output).toContain('Effective');
        expect(await replicasOf('invoice-poster')).toBe(0);
      },
      'guardrails explain': (output) => {
        expect(output).toContain('posts invoices twice');
        return Promise.resolve();
      },
      'guardrails release': async () => {
        expect(await replicasOf('invoice-poster')).toBe(before);
      },
      'guardrails uninstall': async () => {
        expect(await operator?.stop()).toBe(0);
      },
      'delete -k crds': async () => {
        expect(await replicasOf('invoice-poster')).toBe(before);
      },
    };
    const seen = new Set<string>();
    for (const command of commands) {
      const { code, output } = await shell(command);
      expect(code, `${command}\n${output}`).toBe(0);
      const step = Object.keys(after).find((part) => command.includes(part));
      if (step === undefined) continue;
      seen.add(step);
      await after[step]?.(output);
    }
    expect([...seen].toSorted()).toEqual(Object.keys(after).toSorted());

    const kinds =
      'clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,mutatingadmissionpolicies,mutatingadmissionpolicybindings,flowschemas,prioritylevelconfigurations,crds';
    const left = await kubectlOk(controlPlane, ['get', kinds, '-o=name']);
    expect(left.split('\n').filter((name) => name.includes('guardrails'))).toEqual([]);
  }, 240_000);
});
