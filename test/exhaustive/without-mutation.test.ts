/** Kubernetes 1.35 serves no MutatingAdmissionPolicy: the same guarantees by denial. */
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { KubeObject } from '../../src/api/objects.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { findHelm, runProgram } from '../install/helm.ts';
import { automation, automationPods } from '../operator/automation.ts';
import {
  bob,
  getObject,
  installGuardrails,
  kubectlOk,
  listObjects,
  waitForCondition,
} from '../operator/cluster.ts';
import { endStateOf } from '../operator/end-state.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const root = path.dirname(path.dirname(import.meta.dirname));
const chart = path.join(root, 'charts/automation-guardrails');
const folder = path.join(root, 'config/without-mutation');

let controlPlane: ControlPlane;
let helm: string;

beforeAll(async () => {
  [controlPlane, helm] = await Promise.all([
    startControlPlane({ version: '1.35', controllerManagerQps: 500 }),
    findHelm((line) => console.log(line)),
  ]);
}, 600_000);

afterAll(async () => {
  await controlPlane?.stop();
});

async function policies(): Promise<string[]> {
  const kinds = 'validatingadmissionpolicies,validatingadmissionpolicybindings';
  const text = await kubectlOk(controlPlane, ['get', kinds, '-o=name']);
  return text.split('\n').filter((name) => name.includes('automation-guardrails-'));
}

describe('installing where mutation is not served', () => {
  it('is Kubernetes 1.35, without MutatingAdmissionPolicy', async () => {
    const version = await kubectlOk(controlPlane, ['version', '-o=json']);
    expect(version).toContain('"gitVersion": "v1.35.4"');
    const served = await kubectlOk(controlPlane, [
      'get',
      '--raw=/apis/admissionregistration.k8s.io/v1',
    ]);
    expect(served).toContain('ValidatingAdmissionPolicy');
    expect(served).not.toContain('MutatingAdmissionPolicy');
  });

  it('works with the kustomization of its own', async () => {
    await waitFor(
      'the apply',
      async () =>
        (await controlPlane.kubectl(['apply', '--server-side', `-k=${folder}`])).code === 0,
      { timeoutMs: 120_000 },
    );
    const installed = await policies();
    expect(installed.length).toBeGreaterThan(20);
    // The namespace goes first, and may take along what is named after it before its turn comes.
    await kubectlOk(controlPlane, ['delete', `-k=${folder}`, '--wait=false', '--ignore-not-found']);
    await waitFor(
      'everything to be gone',
      async () => {
        const { code } = await controlPlane.kubectl(['get', 'namespace', 'automation-guardrails']);
        const crds = await kubectlOk(controlPlane, ['get', 'crd', '-o=name']);
        return (
          code !== 0 &&
          (await policies()).length === 0 &&
          !crds.includes('automationguardrails.dev')
        );
      },
      { timeoutMs: 120_000 },
    );
  });

  it('works with the chart, which asks the API server', async () => {
    const flags = ['--namespace=guardrails', '--create-namespace'];
    const { code, output } = await runProgram(helm, controlPlane, [
      'install',
      'ag',
      chart,
      ...flags,
    ]);
    expect(code, output).toBe(0);
    expect((await policies()).length).toBeGreaterThan(20);
    const removed = await runProgram(helm, controlPlane, [
      'uninstall',
      'ag',
      '-n=guardrails',
      '--wait',
    ]);
    expect(removed.code, removed.output).toBe(0);
    const cli = path.join(root, 'src/cli/main.ts');
    const retired = await runProgram(process.execPath, controlPlane, [cli, 'uninstall']);
    expect(retired.code, retired.output).toBe(0);
  });

  it.each([
    ['always', true],
    ['never', false],
  ])('goes by the value admission.mutation=%s', async (value, expected) => {
    const set = `--set=admission.mutation=${value}`;
    const { code, output } = await runProgram(helm, controlPlane, ['template', 'ag', chart, set]);
    expect(code, output).toBe(0);
    expect(output.includes('kind: MutatingAdmissionPolicy')).toBe(expected);
    expect(output).toContain('kind: ValidatingAdmissionPolicy');
  });

  it('refuses another value of admission.mutation', async () => {
    const set = '--set=admission.mutation=perhaps';
    const { code, output } = await runProgram(helm, controlPlane, ['template', 'ag', chart, set]);
    expect(code).not.toBe(0);
    expect(output).toMatch(/'auto', 'always', 'never'/);
  });
});

interface Stored {
  metadata: {
    name: string;
    annotations?: Record<string, string>;
    deletionTimestamp?: string;
    managedFields?: { manager: string; operation: string; fieldsV1: Record<string, object> }[];
  };
  spec: {
    replicas?: number;
    suspend?: boolean;
    template?: { spec: { nodeSelector?: Record<string, string> } };
  };
  status?: { phase?: string; failed?: number };
}

/** The objects of a namespace whose names tests rely on. */
const workloadNames = [
  ['deployment', 'invoice-poster'],
  ['statefulset', 'invoice-store'],
  ['daemonset', 'invoice-agent'],
  ['replicaset', 'invoice-worker'],
  ['cronjob', 'invoice-import'],
  ['job', 'invoice-backfill'],
] as const;

const killSwitch = (namespace: string, spec: object = {}): object => ({
  apiVersion: 'automationguardrails.dev/v1alpha1',
  kind: 'KillSwitch',
  metadata: { name: 'invoice', namespace },
  spec: { workflow: 'invoice', reason: 'runaway', ...spec },
});

describe('a kill where mutation is not served', () => {
  const namespace = 'by-patch';
  let operators: OperatorProcess[] = [];

  const objectOf = async (kind: string, name: string): Promise<Stored | undefined> =>
    getObject<Stored>(controlPlane, kind, name, namespace);
  const pods = async (): Promise<Stored[]> =>
    (await listObjects<Stored>(controlPlane, 'pods', namespace)).filter(
      ({ metadata }) => metadata.deletionTimestamp === undefined,
    );
  const untilPodsRun = async (count: number): Promise<void> => {
    await waitFor(
      `${count} running pods`,
      async () => {
        const running = await pods();
        return (
          running.length === count && running.every(({ status }) => status?.phase === 'Running')
        );
      },
      { timeoutMs: 120_000 },
    );
  };
  const untilReleased = async (): Promise<void> => {
    await waitFor(
      'the KillSwitch to be gone',
      async () => (await objectOf('ksw', 'invoice')) === undefined,
      { timeoutMs: 120_000 },
    );
  };
  const release = async (): Promise<void> => {
    await kubectlOk(
      controlPlane,
      [
        'annotate',
        'ksw/invoice',
        `-n=${namespace}`,
        'automationguardrails.dev/release=fixed',
        'automationguardrails.dev/released-by=bob',
      ],
      bob,
    );
    await untilReleased();
  };

  const shell = (command: string): Promise<{ code: number; output: string }> =>
    run('sh', ['-c', command.replace(/^kubectl/, controlPlane.binaries.kubectl)]);
  const cli = (args: readonly string[]): Promise<{ code: number; output: string }> =>
    run(process.execPath, [path.join(root, 'src/cli/main.ts'), ...args]);
  const run = (
    program: string,
    args: readonly string[],
  ): Promise<{ code: number; output: string }> => runProgram(program, controlPlane, args);
  const commandIn = (message: string): string =>
    /kubectl patch .*'$/m.exec(message)?.[0] ?? message;

  beforeAll(async () => {
    await controlPlane.apply([
      {
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: 'ClusterRoleBinding',
        metadata: { name: 'bob' },
        roleRef: {
          apiGroup: 'rbac.authorization.k8s.io',
          kind: 'ClusterRole',
          name: 'cluster-admin',
        },
        subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'bob' }],
      },
    ]);
    const kubeconfigPath = await installGuardrails(controlPlane, { mutation: false });
    // As installed: two replicas.
    operators = await Promise.all([
      startOperator({ kubeconfigPath }),
      startOperator({ kubeconfigPath }),
    ]);
    await controlPlane.apply(automation({ namespace }));
    await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Ready');
    await untilPodsRun(automationPods);
  });

  afterAll(async () => {
    await Promise.all(operators.map((operator) => operator.stop()));
  });

  it('is reported as what it is', async () => {
    const metrics = await (await fetch(operators[0]?.metricsUrl() ?? '')).text();
    expect(metrics).toMatch(/^automation_guardrails_admission_mutation 0$/m);
    expect(operators[0]?.logs.join('\n')).toContain('Admission rewrites no requests');
  });

  it('has to name who engages it, and the refusal says whom', async () => {
    const { stderr } = await controlPlane.kubectl(['create', '-f=-'], {
      input: JSON.stringify(killSwitch(namespace)),
    });
    expect(stderr).toContain('engagedBy is the authenticated user: write spec.engagedBy: admin');
    const forged = await controlPlane.kubectl(['create', '-f=-'], {
      input: JSON.stringify(killSwitch(namespace, { engagedBy: 'somebody' })),
    });
    expect(forged.stderr).toContain('write spec.engagedBy: admin');
  });

  it('is engaged by the command line, by annotation with the command that the refusal names', async () => {
    const reason = `it's "odd" \\\\ again`;
    const annotated = await controlPlane.kubectl([
      'annotate',
      'awf/invoice',
      `-n=${namespace}`,
      `automationguardrails.dev/kill-switch=${reason}`,
    ]);
    expect(annotated.stderr).toContain('where admission writes nothing');
    const engage = await shell(commandIn(annotated.stderr));
    expect(engage.code, engage.output).toBe(0);
    await waitForCondition(controlPlane, { kind: 'ksw', name: 'invoice', namespace }, 'Ready');
    const engaged = await objectOf('ksw', 'invoice');
    expect(engaged?.spec).toMatchObject({ reason, engagedBy: 'admin' });

    const removed = await controlPlane.kubectl([
      'annotate',
      'awf/invoice',
      `-n=${namespace}`,
      'automationguardrails.dev/kill-switch-',
    ]);
    const disengage = await shell(commandIn(removed.stderr));
    expect(disengage.code, disengage.output).toBe(0);

    // Until the API server's own watch has seen the annotation go, it refuses for that.
    await waitFor('the stamp to be what is missing', async () => {
      const asked = await controlPlane.kubectl(
        ['annotate', 'ksw/invoice', `-n=${namespace}`, 'automationguardrails.dev/release=fixed'],
        bob,
      );
      return asked.stderr.includes('automationguardrails.dev/released-by=bob');
    });
    const own = await cli(['release', 'invoice', `--namespace=${namespace}`, '--reason=fixed']);
    expect(own.output).toContain('admin engaged this kill switch; somebody else');
    const released = await cli([
      'release',
      'invoice',
      `--namespace=${namespace}`,
      '--reason=x',
      '--as=bob',
      '--timeout=240',
    ]);
    expect(released.code, released.output).toBe(0);
    const killed = await cli([
      'kill',
      'invoice',
      `--namespace=${namespace}`,
      '--reason=again',
      '--as=bob',
      '--timeout=240',
    ]);
    expect(killed.code, killed.output).toBe(0);
    expect((await objectOf('ksw', 'invoice'))?.spec).toMatchObject({ engagedBy: 'bob' });
    const back = await cli([
      'release',
      'invoice',
      `--namespace=${namespace}`,
      '--reason=fixed',
      '--timeout=240',
    ]);
    expect(back.code, back.output).toBe(0);
    await untilPodsRun(automationPods);
  });

  it('is reviewed in the name of who reviews, and only where who changed it last is known', async () => {
    const changedBy = 'automationguardrails.dev/changed-by';
    const change = async (every: string, author: string | undefined, as = 'admin') => {
      const patch = {
        metadata: { annotations: author === undefined ? {} : { [changedBy]: author } },
        spec: { accessReview: { every } },
      };
      const args = ['patch', 'aid/invoice', `-n=${namespace}`, '--type=merge'];
      const { stderr } = await controlPlane.kubectl([...args, `-p=${JSON.stringify(patch)}`], {
        as,
        asGroups: ['system:masters'],
      });
      return stderr;
    };
    const decide = async (...who: string[]): Promise<string> => {
      const decision = ['--decision=Keep', '--reason=still in use'];
      return waitFor('the operator to have seen the last change', async () => {
        const args = ['review', 'invoice', `--namespace=${namespace}`, ...decision, ...who];
        const { output } = await cli(args);
        return /look( at it)? again|published no digest/.test(output) ? undefined : output;
      });
    };
    expect(await change('2160h', 'bob')).toContain(
      'leave it out or, where admission writes nothing, write admin',
    );
    expect(await change('2160h', undefined)).toBe('');
    expect(await decide('--as=bob')).toContain('it is not known who changed invoice last');
    expect(await change('2161h', 'admin')).toBe('');
    expect(await decide()).toContain('admin changed invoice last; somebody else has to review it');
    expect(await decide('--as=bob')).toContain('Recorded: Keep');
    const reviews = await listObjects<{ spec: object }>(controlPlane, 'arv', namespace);
    expect(reviews.map(({ spec }) => spec)).toMatchObject([{ reviewer: 'bob' }]);
    expect(await change('2162h', undefined, 'bob')).toContain(
      'where admission writes nothing, write bob',
    );
  });

  it('is promoted as who promotes, with his groups, where a GuardrailPolicy asks for both', async () => {
    const next = 'finance-next';
    await controlPlane.apply([
      {
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: next, labels: { 'automationguardrails.dev/environment': 'test' } },
      },
      {
        apiVersion: 'automationguardrails.dev/v1alpha1',
        kind: 'GuardrailPolicy',
        metadata: { name: 'default' },
        spec: { enforcement: 'Enforce', tiers: [{ name: 'test', required: ['Requester'] }] },
      },
    ]);
    await waitFor('the policy to be in force', async () => {
      const unsigned = await controlPlane.kubectl(['create', '-f=-', '--dry-run=server'], {
        input: JSON.stringify({
          apiVersion: 'automationguardrails.dev/v1alpha1',
          kind: 'AutomationIdentity',
          metadata: { name: 'invoice', namespace: next },
          spec: { purpose: 'posts', owner: { team: 'a', contact: 'a', escalation: 'a' } },
        }),
      });
      return unsigned.stderr.includes('changed-by with your own name (admin)');
    });
    await waitFor('what stands to be in force', async () => {
      const { code, output } = await cli(['promote', 'invoice', '--from', namespace, '--to', next]);
      if (code === 0) return true;
      expect(output).toContain("isn't in force there");
      return false;
    });
    const promoted = await getObject<KubeObject>(controlPlane, 'awf', 'invoice', next);
    expect(promoted?.metadata.annotations).toMatchObject({
      'automationguardrails.dev/changed-by': 'admin',
      'automationguardrails.dev/changed-by-groups': expect.stringContaining('system:masters'),
    });
    await kubectlOk(controlPlane, ['delete', 'gpol', 'default']);
    await kubectlOk(controlPlane, ['delete', 'namespace', next, '--wait=false']);
    // What stood before names nobody, and was held meanwhile.
    for (const kind of ['aid', 'awf']) {
      await waitForCondition(controlPlane, { kind, name: 'invoice', namespace }, 'Ready');
    }
  });

  it('stops every kind, keeps what was asked for, and puts exactly that back', async () => {
    const asleep = {
      apiVersion: 'batch/v1',
      kind: 'CronJob',
      metadata: { name: 'asleep', namespace },
      spec: {
        schedule: '* * * * *',
        suspend: true,
        jobTemplate: {
          spec: {
            template: {
              spec: {
                serviceAccountName: 'invoice',
                restartPolicy: 'Never',
                containers: [{ name: 'main', image: 'registry.example/automation:1' }],
              },
            },
          },
        },
      },
    };
    await controlPlane.apply([asleep]);
    const before = await endStateOf(controlPlane, namespace);
    await controlPlane.apply([killSwitch(namespace, { engagedBy: 'admin' })]);
    await waitForCondition(controlPlane, { kind: 'ksw', name: 'invoice', namespace }, 'Ready');
    expect(await pods()).toEqual([]);
    for (const [kind, name] of workloadNames) {
      const { spec, metadata } = (await objectOf(kind, name)) ?? { metadata: { name }, spec: {} };
      const isPaused =
        spec.replicas === 0 ||
        spec.suspend === true ||
        spec.template?.spec.nodeSelector?.['automationguardrails.dev/stopped'] === 'true';
      expect(isPaused, name).toBe(true);
      const kept = Object.keys(metadata.annotations ?? {}).filter((key) =>
        key.startsWith('automationguardrails.dev/restore-'),
      );
      expect(kept, name).toHaveLength(1);
    }
    const paused = await waitForCondition(
      controlPlane,
      { kind: 'ksw', name: 'invoice', namespace },
      'Paused',
    );
    expect(paused.message).toContain('Paused by patch');

    await release();
    await untilPodsRun(automationPods);
    await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Ready');
    await waitFor('all to be as before', async () => {
      expect(await endStateOf(controlPlane, namespace)).toEqual(before);
      return true;
    });
    expect((await objectOf('cronjob', 'asleep'))?.spec.suspend).toBe(true);
    expect((await objectOf('job', 'invoice-backfill'))?.status?.failed ?? 0).toBe(0);
  });

  it('leaves the paused field to its owner: his next apply meets no conflict', async () => {
    const poster = (await objectOf('deployment', 'invoice-poster'))?.metadata.managedFields ?? [];
    const owners = poster.filter(({ fieldsV1 }) => 'f:replicas' in (fieldsV1['f:spec'] ?? {}));
    expect(owners.map(({ manager }) => manager)).not.toContain('automation-guardrails');
    const manifest = automation({ namespace }).find(
      (object) => (object as { kind: string }).kind === 'Deployment',
    ) as { spec: { replicas: number } };
    manifest.spec.replicas = 4;
    await kubectlOk(controlPlane, ['apply', '--server-side', '-f=-'], {
      input: JSON.stringify(manifest),
    });
    await untilPodsRun(automationPods + 1);
  });

  it('refuses what would start something meanwhile, and says what to write instead', async () => {
    await controlPlane.apply([killSwitch(namespace, { engagedBy: 'admin' })]);
    await waitForCondition(controlPlane, { kind: 'ksw', name: 'invoice', namespace }, 'Ready');
    const write = (manifest: object): Promise<{ code: number; stderr: string }> =>
      controlPlane.kubectl(['apply', '--server-side', '--force-conflicts', '-f=-'], {
        input: JSON.stringify(manifest),
      });
    const manifests = automation({ namespace }) as {
      kind: string;
      spec: { suspend?: boolean; template?: { spec: { nodeSelector?: object } } };
    }[];
    for (const manifest of manifests) {
      if (['CronJob', 'Job'].includes(manifest.kind)) manifest.spec.suspend = false;
      // Its nodeSelector is one value: without one in the manifest, the operator's stays.
      if (manifest.kind === 'DaemonSet' && manifest.spec.template !== undefined) {
        manifest.spec.template.spec.nodeSelector = { disk: 'ssd' };
      }
      if (!['Deployment', 'StatefulSet', 'DaemonSet', 'CronJob', 'Job'].includes(manifest.kind)) {
        continue;
      }
      const { code, stderr } = await write(manifest);
      expect(code, manifest.kind).not.toBe(0);
      expect(stderr).toContain('kill switch: runaway (engaged by admin)');
      expect(stderr).toMatch(/or write it paused: spec\.(replicas: 0|suspend: true|template)/);
    }
    const born = {
      apiVersion: 'batch/v1',
      kind: 'Job',
      metadata: { name: 'born', namespace },
      spec: (manifests.find(({ kind }) => kind === 'Job') ?? { spec: {} }).spec,
    };
    expect((await write(born)).stderr).toContain('or write it paused: spec.suspend: true');
    expect((await write({ ...born, spec: { ...born.spec, suspend: true } })).code).toBe(0);
    expect(await pods()).toEqual([]);
    await release();
    expect((await objectOf('job', 'born'))?.spec.suspend).toBe(true);
    // What was refused is asked for again by whoever asked for it: nothing kept it.
    await untilPodsRun(automationPods + 1);
  });
});
