/**
 * Installing, upgrading and uninstalling while a cluster is at work, with namespaces that are guarded
 * already: no unrelated write is refused, in guarded namespaces or elsewhere, and no kill that is
 * engaged opens.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { resources, type Resource } from '../../src/api/resources.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { runProgram } from '../install/helm.ts';
import { kubectlOk, waitUntilEstablished } from '../operator/cluster.ts';
import { Api } from '../integration/admission/api.ts';
import { pod } from '../integration/admission/workloads.ts';

const root = path.dirname(path.dirname(import.meta.dirname));
const environment = { 'automationguardrails.dev/environment': 'prod' };
const configMaps: Resource = {
  group: '',
  version: 'v1',
  kind: 'ConfigMap',
  plural: 'configmaps',
  namespaced: true,
};

let controlPlane: ControlPlane;
let api: Api;
let unrelated: Traffic;
let folder: string;

/** Goes on writing until it is stopped, and keeps every answer that isn't as it should be. */
class Traffic {
  readonly surprises: string[] = [];
  answers = 0;
  #isStopped = false;
  readonly #ended: Promise<void>;

  /** @param round one round of writes; it returns what is wrong */
  constructor(round: (count: number) => Promise<string[]>) {
    this.#ended = (async () => {
      for (let count = 0; !this.#isStopped; count++) {
        this.surprises.push(...(await round(count)));
        this.answers += 1;
      }
    })();
  }

  /** As many rounds as it takes to be sure that one began after now. */
  async goesOn(rounds = 5): Promise<void> {
    const from = this.answers;
    await waitFor('the traffic to go on', () => this.answers >= from + rounds, {
      timeoutMs: 120_000,
    });
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#ended;
  }
}

function unrelatedWrites(): Traffic {
  return new Traffic(async (count) => {
    const refused: string[] = [];
    for (const namespace of ['guarded', 'plain', 'kube-system']) {
      const name = `unrelated-${count}`;
      const deployment = {
        metadata: { namespace, name },
        spec: {
          replicas: 1,
          selector: { matchLabels: { app: name } },
          template: {
            metadata: { labels: { app: name } },
            spec: { containers: [{ name: 'main', image: 'registry.example/other:1' }] },
          },
        },
      };
      const answers = await Promise.all([
        api.create(resources.pods, pod(namespace, name, 'default')),
        api.create(resources.deployments, deployment),
        api.create(resources.secrets, { metadata: { namespace, name } }),
        api.create(configMaps, { metadata: { namespace, name } }),
      ]);
      refused.push(
        ...answers
          .filter(({ status }) => status >= 400)
          .map(({ message }) => `${namespace}: ${message}`),
      );
      for (const resource of [
        resources.pods,
        resources.deployments,
        resources.secrets,
        configMaps,
      ]) {
        const { status, message } = await api.delete(resource, { namespace, name });
        if (status >= 400 && status !== 404) refused.push(`${namespace}: ${message}`);
      }
    }
    return refused;
  });
}

/** Tries to start a pod of the automation that is stopped. */
function attempts(): Traffic {
  return new Traffic(async () => {
    const { status } = await api.create(resources.pods, pod('engaged', 'attempt', 'invoice'), {
      dryRun: true,
    });
    return status === 403 ? [] : [`answered ${status}`];
  });
}

const cli = (...args: string[]): Promise<{ code: number; output: string }> =>
  runProgram(process.execPath, controlPlane, [path.join(root, 'src/cli/main.ts'), ...args]);

async function applied(...args: string[]): Promise<void> {
  await kubectlOk(controlPlane, ['apply', '--server-side', '--force-conflicts', ...args]);
}

async function policies(): Promise<string> {
  const kinds = ['validating', 'mutating'].flatMap((kind) => [
    `${kind}admissionpolicies`,
    `${kind}admissionpolicybindings`,
  ]);
  return kubectlOk(controlPlane, ['get', kinds.join(','), '-o=name']);
}

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'automation-guardrails-install-'));
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  api = Api.asAdmin(controlPlane);
  await controlPlane.apply([
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'plain' } },
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'guarded', labels: environment } },
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'engaged', labels: environment } },
    {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: 'invoice', namespace: 'engaged' },
    },
  ]);
  await waitFor('the ServiceAccounts', async () => {
    const { stdout } = await controlPlane.kubectl(['get', 'serviceaccounts', '-A', '-o=name']);
    return stdout.split('serviceaccount/default').length > 6;
  });
  unrelated = unrelatedWrites();
});

afterAll(async () => {
  await unrelated?.stop();
  await api?.close();
  await controlPlane?.stop();
  await rm(folder, { recursive: true, force: true });
});

describe('in the order of the documentation, no unrelated write is refused', () => {
  it('during the installation of an earlier version', async () => {
    await unrelated.goesOn();
    // It differs from this one by the names of two policies.
    const earlier = path.join(folder, 'earlier');
    await mkdir(earlier);
    const text = await readFile(
      path.join(root, 'config/admission/validating/policies.yaml'),
      'utf8',
    );
    await writeFile(
      path.join(earlier, 'policies.yaml'),
      text
        .replaceAll(/automation-guardrails-fence-pods$/gm, 'automation-guardrails-old-pods')
        .replaceAll(/automation-guardrails-fence-tokens$/gm, 'automation-guardrails-old-tokens'),
    );
    await applied('-k', path.join(root, 'crds'));
    await waitUntilEstablished(controlPlane, ['crd', '--all']);
    // What the policies take as parameters is served, and read once, before any policy comes.
    await waitFor(
      'our kinds to be served',
      async () => (await controlPlane.kubectl(['get', 'awf,aid,ksw,cksw', '-A'])).code === 0,
    );
    await applied('-k', path.join(root, 'config/operator'));
    await applied('-k', path.join(root, 'config/rbac'));
    await applied('-k', path.join(root, 'config/admission/mutating'));
    await applied('-f', path.join(earlier, 'policies.yaml'));
    const killSwitch = {
      metadata: { namespace: 'engaged', name: 'invoice' },
      spec: { workflow: 'invoice', reason: 'runaway', engagedBy: 'admin' },
    };
    expect((await api.create(resources.killSwitches, killSwitch)).message).toBe('');
    await waitFor('the kill to stand', async () => {
      const { message } = await api.create(resources.pods, pod('engaged', 'attempt', 'invoice'), {
        dryRun: true,
      });
      return message.includes('automation-guardrails-old-pods');
    });
    await unrelated.goesOn();
    expect(unrelated.surprises).toEqual([]);
  });

  it('during an upgrade with renamed policies, nor opens a kill', async () => {
    const attempted = attempts();
    try {
      const refused = await cli('prune');
      expect(refused.code).toBe(1);
      expect(refused.output).toContain("aren't all installed");
      await applied('-k', path.join(root, 'config/default'));
      expect(await policies()).toContain('automation-guardrails-old-pods');
      const { code, output } = await cli('prune');
      expect(code, output).toBe(0);
      expect(output).toContain('4 policies and bindings of another version are gone');
      await attempted.goesOn(200);
    } finally {
      await attempted.stop();
    }
    expect(attempted.surprises).toEqual([]);
    expect(await policies()).not.toMatch(/guardrails-old-|sentinel/);
    expect((await cli('prune')).output).toContain('No policy of another version is left');
    await unrelated.goesOn();
    expect(unrelated.surprises).toEqual([]);
  });

  it('during the uninstallation, which a kill that is engaged holds up', async () => {
    const held = await cli('uninstall');
    expect(held.code).toBe(1);
    expect(held.output).toContain('KillSwitch engaged/invoice');
    expect(await policies()).toContain('automation-guardrails-fence-pods');

    const { code, output } = await cli('uninstall', '--force');
    expect(code, output).toBe(0);
    expect(await policies()).not.toContain('automation-guardrails-');
    await kubectlOk(controlPlane, [
      'delete',
      '-k',
      path.join(root, 'config/operator'),
      '--wait=false',
      '--ignore-not-found',
    ]);
    await kubectlOk(controlPlane, [
      'delete',
      '-k',
      path.join(root, 'config/rbac'),
      '--ignore-not-found',
    ]);
    await kubectlOk(controlPlane, ['delete', '-k', path.join(root, 'crds')]);
    await unrelated.goesOn(20);
    await unrelated.stop();
    expect(unrelated.surprises).toEqual([]);

    // What a restarted API server would refuse, had a policy outlived its parameters.
    await controlPlane.restartApiServer();
    unrelated = unrelatedWrites();
    await unrelated.goesOn();
    expect(unrelated.surprises).toEqual([]);
  });
});
