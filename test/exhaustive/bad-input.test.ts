import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Approval } from '../../src/api/approval.ts';
import { conditionOf } from '../../src/api/conditions.ts';
import { annotation, API_VERSION, approvalGate, label } from '../../src/api/names.ts';
import type { Condition, KubeObject } from '../../src/api/objects.ts';
import { resources, type Resource } from '../../src/api/resources.ts';
import type { Workflow } from '../../src/api/workflow.ts';
import type { WorkflowRevision } from '../../src/api/workflow-revision.ts';
import { assertAllDone, forEachBounded } from '../../src/runtime/parallel.ts';
import { memoryOf } from '../bench/memory.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { Api } from '../integration/admission/api.ts';
import { installGuardrails, kubectlOk, listObjects } from '../operator/cluster.ts';
import { heapArgs, memoryLimit } from '../operator/container.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const namespace = 'odd';
const args = ['--leader-elect=false'];
const { approvals, automationIdentities, deployments, guardrailPolicies, workflows } = resources;
const owner = { team: 'payments', contact: 'p@example.com', escalation: '#p' };

/** Generous: what is slow here is the machine, not what is tried. */
const long = { timeoutMs: 300_000, intervalMs: 250 };

let controlPlane: ControlPlane;
let kubeconfigPath: string;
let operator: OperatorProcess;
let admin: Api;
let bob: Api;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  kubeconfigPath = await installGuardrails(controlPlane);
  const binding = ['create', 'clusterrolebinding', 'bob', '--user=bob'];
  await kubectlOk(controlPlane, [...binding, '--clusterrole=cluster-admin']);
  admin = Api.asAdmin(controlPlane);
  bob = admin.as('bob');
  await controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { [label.environment]: 'test' } },
    },
  ]);
  operator = await startOperator({ kubeconfigPath, args, nodeArgs: heapArgs(await memoryLimit()) });
});

afterAll(async () => {
  await operator?.stop();
  await Promise.all([admin?.close(), bob?.close()]);
  await controlPlane?.stop();
});

const at = (name: string): { namespace: string; name: string } => ({ namespace, name });

async function create(resource: Resource, name: string, spec: object): Promise<void> {
  const answer = await admin.create(resource, { metadata: at(name), spec } as KubeObject);
  expect(answer.message).toBe('');
}

/** A Workflow, its identity, and a Deployment with one pod. */
async function provision(name: string, fields: object = {}, container = {}): Promise<void> {
  const targets = [{ group: 'apps', kind: 'Deployment', name }];
  const labels = { app: name };
  await create(workflows, name, { owner, targets, ...fields });
  await create(automationIdentities, name, { purpose: 'posts', owner });
  await create(deployments, name, {
    replicas: 1,
    selector: { matchLabels: labels },
    template: {
      metadata: { labels },
      spec: {
        serviceAccountName: name,
        automountServiceAccountToken: false,
        containers: [{ name: 'main', image: 'v1', ...container }],
      },
    },
  });
}

async function untilCondition(
  resource: Resource,
  name: string,
  type: string,
  reason: string,
): Promise<Condition> {
  const what = `${type} of ${resource.plural} ${name} to be ${reason}`;
  return await waitFor(
    what,
    async () => {
      const found = conditionOf(
        (await admin.get(resource, at(name))).object.status?.conditions,
        type,
      );
      return found?.reason === reason ? found : undefined;
    },
    long,
  );
}

const unknownDigest = '0'.repeat(64);

function decision(workflow: string, name: string, fields: object = {}): KubeObject {
  const spec = { workflow, digest: unknownDigest, decision: 'Approve', reason: 'fine', ...fields };
  return { metadata: at(name), spec } as KubeObject;
}

async function digestOf(workflow: string): Promise<string | undefined> {
  const { object } = await admin.get(workflows, at(workflow));
  return (object as Partial<Workflow>).status?.revision?.digest;
}

async function approve(workflow: string, digest: string): Promise<void> {
  const answer = await bob.create(approvals, decision(workflow, `${workflow}-fine`, { digest }));
  expect(answer.message).toBe('');
}

interface PodView extends KubeObject {
  spec: { serviceAccountName: string; schedulingGates?: { name: string }[] };
}

async function untilPod(name: string, is: 'waiting' | 'started'): Promise<void> {
  await waitFor(
    `the pod of ${name} to be ${is}`,
    async () => {
      const list = await listObjects<PodView>(controlPlane, 'pods', namespace);
      const own = list.filter(({ spec }) => spec.serviceAccountName === name);
      const isWaiting = ({ spec: { schedulingGates = [] } }: PodView): boolean =>
        schedulingGates.some((gate) => gate.name === approvalGate);
      return own.length === 1 && own.every((pod) => isWaiting(pod) === (is === 'waiting'));
    },
    long,
  );
}

describe('decisions', () => {
  it('on a Workflow that does not exist start nothing, and are kept in no number', async () => {
    const many = Array.from({ length: 60 }, (_, index) => `nobody-${index}`);
    for (const name of many) {
      const answer = await bob.create(approvals, decision('nobody', name));
      expect(answer.message).toBe('');
    }
    await waitFor(
      'the oldest to be gone',
      async () => {
        const list = await listObjects<Approval>(controlPlane, 'approvals', namespace);
        return list.filter(({ spec }) => spec.workflow === 'nobody').length === 20;
      },
      long,
    );
    const over = decision('nobody', 'over', { expires: '2020-01-01T00:00:00Z' });
    expect((await bob.create(approvals, over)).message).toContain('has passed already');
  });

  it('of a number of 10,000 on one digest fit into the memory of its container, and the next counts', async () => {
    await provision('crowded', { risk: 'Medium' });
    await untilPod('crowded', 'waiting');
    await untilCondition(workflows, 'crowded', 'Approved', 'NotApproved');
    let most = 0;
    const look = async (): Promise<void> => {
      most = Math.max(most, (await memoryOf(operator.metricsUrl())).rss);
    };
    const many = Array.from({ length: 10_000 }, (_, index) => `crowded-${index}`);
    const decided = forEachBounded(many, 64, async (name) => {
      expect((await bob.create(approvals, decision('crowded', name))).message).toBe('');
    });
    let isDecided = false;
    void decided.then(() => (isDecided = true));
    await waitFor(
      'all but the newest to be gone',
      async () => {
        await look();
        if (!isDecided) return false;
        const list = await listObjects<Approval>(controlPlane, 'approvals', namespace);
        return list.filter(({ spec }) => spec.workflow === 'crowded').length === 20;
      },
      // Both the creation of so many and their end.
      { ...long, timeoutMs: 3 * long.timeoutMs },
    );
    assertAllDone(await decided, 'decide');
    await approve('crowded', (await digestOf('crowded')) ?? '');
    await untilPod('crowded', 'started');
    await look();
    expect(most).toBeLessThan(await memoryLimit());
  });
});

describe('a pod template of a megabyte', () => {
  it('is recorded by its digest, approved, started and stopped like any other', async () => {
    const padding = Array.from({ length: 100 }, (_, index) => `${index} `.padEnd(10_000, 'x'));
    await provision('huge', { risk: 'Medium' }, { args: padding });
    await untilPod('huge', 'waiting');
    await untilCondition(workflows, 'huge', 'Approved', 'NotApproved');
    const revision = await waitFor(
      'its revision, and its status to have that',
      async () => {
        const all = await listObjects<WorkflowRevision>(controlPlane, 'awr', namespace);
        const whole = all.find(({ spec: { workflow, parts } }) => {
          return workflow === 'huge' && parts.length === 3;
        });
        return whole !== undefined && whole.spec.digest === (await digestOf('huge')) && whole;
      },
      long,
    );
    expect(JSON.stringify(revision).length).toBeLessThan(10_000);
    await approve('huge', revision.spec.digest);
    await untilPod('huge', 'started');
    const killed = await admin.annotate(workflows, at('huge'), { [annotation.killSwitch]: 'odd' });
    expect(killed.message).toBe('');
    await waitFor(
      'its pod to be gone',
      async () => {
        const list = await listObjects<PodView>(controlPlane, 'pods', namespace);
        return list.every(({ spec }) => spec.serviceAccountName !== 'huge');
      },
      long,
    );
  });
});

describe('a GuardrailPolicy that forbids everything', () => {
  it('refuses by name, holds what stood before, and keeps nobody from a kill', async () => {
    await provision('before');
    await untilPod('before', 'started');
    const ceilings = {
      tokenLifetime: '1s',
      rotationInterval: '1s',
      reviewInterval: '1s',
      egressPrefixIPv4: 32,
      egressPrefixIPv6: 128,
    };
    const required = ['Description', 'Version', 'ChangeReason', 'RequestedBy', 'Ticket', 'Timeout'];
    const approvalsOf = { low: 8, medium: 8, high: 8 };
    const tiers = ['dev', 'test', 'prod'].map((name) => ({
      name,
      ceilings,
      required,
      approvals: approvalsOf,
    }));
    await controlPlane.apply([
      {
        apiVersion: API_VERSION,
        kind: 'GuardrailPolicy',
        metadata: { name: 'default' },
        spec: { enforcement: 'Enforce', tiers },
      },
    ]);
    const refused = async (resource: Resource, spec: object): Promise<string> =>
      await waitFor(
        'a refusal',
        async () => {
          const object = { metadata: at('new'), spec } as KubeObject;
          return (await admin.create(resource, object, { dryRun: true })).message;
        },
        long,
      );
    const targets = [{ group: 'apps', kind: 'Deployment', name: 'new' }];
    expect(await refused(workflows, { owner, targets })).toContain(
      'beyond the ceiling required of the GuardrailPolicy default in test',
    );
    const identity = { purpose: 'posts', owner };
    expect(await refused(automationIdentities, identity)).toContain('the ceiling reviewInterval');
    const held = await untilCondition(workflows, 'before', 'PolicyViolation', 'Enforced');
    expect(held.message).toContain('required: missing');
    const { message } = await untilCondition(workflows, 'before', 'Approved', 'NotApproved');
    expect(message).toContain('8 of 8 approvals missing');
    const killed = await admin.annotate(workflows, at('before'), {
      [annotation.killSwitch]: 'odd',
    });
    expect(killed.message).toBe('');
    await waitFor(
      'its pod to be gone',
      async () => {
        const list = await listObjects<PodView>(controlPlane, 'pods', namespace);
        return list.every(({ spec }) => spec.serviceAccountName !== 'before');
      },
      long,
    );
    await admin.delete(guardrailPolicies, { name: 'default' });
  });
});
