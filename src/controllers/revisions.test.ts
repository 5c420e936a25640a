import { beforeEach, describe, expect, it } from 'vitest';
import type { Approval } from '../api/approval.ts';
import { timestamp } from '../api/conditions.ts';
import { annotation, label } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import type { Workflow } from '../api/workflow.ts';
import { projectWorkload, type Workload } from '../api/workload.ts';
import type { WorkflowRevision } from '../api/workflow-revision.ts';
import { recorded } from '../guardrails/approval/plan.ts';
import { MemoryClient } from '../guardrails/identity/memory-client.testing.ts';
import { silentLogger } from '../observability/logger.ts';
import { StatusWriter } from '../runtime/status-writer.ts';
import { PolicyInForce } from './policy-in-force.ts';
import { RevisionController } from './revisions.ts';
import { WorkflowApprovals, workflowOfApproval, workflowOfRevision } from './workflow-approval.ts';

const namespace = 'finance';
const name = 'poster';
const key = `${namespace}/${name}`;
const { workflows, approvals, workflowRevisions, deployments, namespaces, automationIdentities } =
  resources;

let now: number;
let client: MemoryClient;
let state: WorkflowApprovals;
let events: string[];
let jobs: string[];

beforeEach(() => {
  now = Date.UTC(2030, 0, 1);
  client = new MemoryClient(() => now);
  events = [];
  jobs = [];
  client.put(namespaces, {
    metadata: { name: namespace, labels: { [label.environment]: 'prod' } },
  });
  deploy('v1', 'alice');
  client.put(workflows, workflow('Medium'));
});

/** As a process that has just started. */
function start(limit = 10): RevisionController {
  const byWorkflow = client.storeOf(approvals, { workflow: workflowOfApproval });
  const revisions = client.storeOf(workflowRevisions, { workflow: workflowOfRevision });
  const workloads = {
    list: (): Workload[] => [],
    byIndex: (): Workload[] => [
      ...client.all(deployments).map((object) => projectWorkload('Deployment', object)),
      ...jobs.map((job) =>
        projectWorkload('Job', {
          metadata: { namespace, name: job, uid: job, labels: { app: name } },
        }),
      ),
    ],
  };
  const stores = {
    workflows: client.storeOf(workflows),
    identities: client.storeOf(automationIdentities),
    approvals: byWorkflow,
    revisions,
    workloads,
    clock: () => now,
  };
  const policy = new PolicyInForce({
    guardrailPolicies: client.storeOf(resources.guardrailPolicies),
    namespaces: client.storeOf(namespaces),
    clock: () => now,
  });
  state = new WorkflowApprovals({ ...stores, policy });
  return new RevisionController({
    ...stores,
    client,
    statusWriter: new StatusWriter({ client }),
    events: { normal: (_, reason, message) => events.push(`${reason} ${message}`) },
    state,
    namespaces: client.storeOf(namespaces),
    limit,
  });
}

function workflow(risk: Workflow['spec']['risk']): Workflow {
  return {
    metadata: { namespace, name, uid: 'w', annotations: { [annotation.changedBy]: 'alice' } },
    spec: {
      ...(risk !== undefined && { risk }),
      targets: [{ group: 'apps', kind: 'Deployment', name }],
    },
  };
}

function deploy(image: string, by: string, more: object = {}): void {
  const object: KubeObject & { spec: object } = {
    metadata: { namespace, name, uid: 'd', annotations: { [annotation.changedBy]: by } },
    spec: {
      template: {
        spec: {
          serviceAccountName: name,
          containers: [
            { name: 'main', image, ...more, env: [{ name: 'API_TOKEN', value: 'hunter2' }] },
          ],
        },
      },
    },
  };
  client.put(deployments, object);
}

let made = 0;

/** Somebody approves what stands, and the Workflow's controller says what is approved. */
function approve(by: string): void {
  const digest = state.of(key)?.revision?.digest ?? '';
  const approval: Approval = {
    metadata: { namespace, name: `a${made++}`, creationTimestamp: timestamp(now) },
    spec: { workflow: name, digest, decision: 'Approve', reason: 'fine', approver: by },
  };
  client.put(approvals, approval);
}

function report(): void {
  const known = state.of(key);
  const before = client.find(workflows, { namespace, name });
  if (known?.revision === undefined || before === undefined) return;
  const approved =
    known.finding.status === 'True' ? recorded(known.revision) : before.status?.revision?.approved;
  client.put(workflows, {
    ...before,
    status: {
      revision: { digest: known.revision.digest, ...(approved !== undefined && { approved }) },
    },
  });
}

/** Until nothing is written any more; a look that fails is one more. */
async function settle(limit?: number): Promise<void> {
  for (let quiet = 0, looks = 0; quiet < 2 && looks < 50; looks++) {
    const before = client.writes.length;
    try {
      await start(limit).reconcile(key, {
        signal: AbortSignal.any([]),
        log: silentLogger(),
        correlationId: '1',
      });
      report();
      quiet = client.writes.length === before ? quiet + 1 : 0;
    } catch {
      quiet = 0;
    }
  }
}

/** Number, who changed it, and what became of it; the newest last. */
function history(): string[] {
  return client
    .all(workflowRevisions)
    .toSorted((a, b) => a.spec.revision - b.spec.revision)
    .map(({ spec, status }) =>
      [
        spec.revision,
        spec.authenticated.join(),
        ...(status?.active === true ? ['active'] : []),
        ...(status?.approved === undefined ? [] : [`by ${status.approved.by.join()}`]),
        ...(spec.sameAs === undefined ? [] : [`= ${spec.sameAs}`]),
      ].join(' '),
    );
}

/** A change, an approval, a change, a decision, and back: what is asked of it in its life. */
async function life(): Promise<void> {
  await settle();
  approve('bob');
  await settle();
  deploy('v2', 'carol');
  await settle();
  deploy('v3', 'tom');
  await settle();
  // Carol had a part in it.
  approve('carol');
  await settle();
  approve('bob');
  await settle();
  deploy('v1', 'carol');
  await settle();
}

const endState = [
  '1 alice by bob',
  '2 carol',
  '3 tom by bob',
  // Bob's approval of then counts, and what Carol did since doesn't matter to it.
  '4 carol active by bob = 1',
];

describe('the history of a Workflow', () => {
  it('is recorded from what stands, and written once', async () => {
    await life();
    expect(history()).toEqual(endState);
    const [first] = client.all(workflowRevisions);
    expect(JSON.stringify(first)).toContain('"image\\":\\"v1');
    expect(JSON.stringify(client.all(workflowRevisions))).not.toContain('hunter2');
    expect(events).toHaveLength(4);
    const { length } = client.writes;
    await settle();
    expect(client.writes).toHaveLength(length);
  });

  it('is kept of a Workflow that needs no approval, too', async () => {
    client.put(workflows, workflow('Low'));
    await settle();
    deploy('v2', 'tom');
    await settle();
    expect(history()).toEqual(['1 alice', '2 tom active']);
  });

  it('has one in force while runs come and go', async () => {
    client.put(workflows, {
      ...workflow('Low'),
      spec: {
        targets: [{ group: 'batch', kind: 'Job', selector: { matchLabels: { app: name } } }],
      },
    });
    await settle();
    jobs = ['run-1'];
    await settle();
    expect(history()).toEqual(['1 alice active']);
  });

  it('is bounded', async () => {
    client.put(workflows, workflow('Low'));
    for (let version = 1; version <= 12; version++) {
      deploy(`v${version}`, 'tom');
      await settle(3);
    }
    expect(history()).toEqual(['10 tom', '11 tom', '12 tom active']);
  });

  it('keeps of a pod template of 1 MB its digest, and everything else', async () => {
    client.put(workflows, workflow('Low'));
    const args = Array.from({ length: 130 }, (_, index) => `${index}`.padEnd(8_000, 'x'));
    deploy('v1', 'alice', { args });
    await settle();
    const [first] = client.all(workflowRevisions);
    expect(JSON.stringify(first).length).toBeLessThan(5_000);
    expect(first?.spec.parts.map(({ name: of, content }) => [of, content !== undefined])).toEqual([
      ['Workflow', true],
      ['AutomationIdentity', false],
      ['Deployment poster', false],
    ]);
    deploy('v1', 'alice', { args: [...args, 'more'] });
    await settle();
    expect(history()).toEqual(['1 alice', '2 alice active']);
  });

  it('says nothing of what is changed while it is read', async () => {
    const [first] = client.all(deployments);
    client.get = async (resource, at) => {
      deploy('v9', 'tom');
      return await Promise.resolve(client.find(resource, at));
    };
    const result = await start().reconcile(key, {
      signal: AbortSignal.any([]),
      log: silentLogger(),
      correlationId: '1',
    });
    expect(first).toBeDefined();
    expect(result.requeueAfterMs).toBeGreaterThan(0);
    expect(client.all(workflowRevisions)).toEqual([]);
  });

  it('is the same after a crash before or after any write', async () => {
    await life();
    const wanted = client.all(workflowRevisions).map(endOf);
    const writes = client.writes.length;
    expect(writes).toBeGreaterThan(8);
    for (const when of ['beforeWrite', 'afterWrite'] as const) {
      for (let crash = 1; crash <= writes; crash++) {
        client = new MemoryClient(() => now);
        client.put(namespaces, {
          metadata: { name: namespace, labels: { [label.environment]: 'prod' } },
        });
        deploy('v1', 'alice');
        client.put(workflows, workflow('Medium'));
        let count = 0;
        client[when] = () => {
          if (++count === crash) throw new Error('crashed');
        };
        await life();
        expect(client.all(workflowRevisions).map(endOf), `${when} ${crash}`).toEqual(wanted);
      }
    }
  });
});

function endOf({ metadata, spec, status }: WorkflowRevision): object {
  return { name: metadata.name, spec, status };
}
