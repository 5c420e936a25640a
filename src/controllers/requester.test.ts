import { describe, expect, it } from 'vitest';
import { timestamp } from '../api/conditions.ts';
import { annotation } from '../api/names.ts';
import type { SubjectAccessReview } from '../api/objects.ts';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import type { Workflow } from '../api/workflow.ts';
import { isHeldBack } from '../guardrails/requester/plan.ts';
import { MemoryClient } from '../guardrails/identity/memory-client.testing.ts';
import { RequesterRights, type RequesterVerdict } from './requester.ts';

const { signal } = new AbortController();
const stamps = {
  [annotation.changedBy]: 'alice',
  [annotation.changedByGroups]: 'finance\nsystem:authenticated',
};

const workflow: Workflow = {
  metadata: { namespace: 'finance', name: 'poster', generation: 1, annotations: stamps },
  spec: {
    targets: [
      { group: 'apps', kind: 'Deployment', name: 'poster' },
      { group: 'apps', kind: 'Deployment', name: 'poster' },
      { group: 'batch', kind: 'CronJob', selector: { matchLabels: { app: 'poster' } } },
    ],
  },
};

const identity = (permissions: AutomationIdentity['spec']['permissions']): AutomationIdentity => ({
  metadata: workflow.metadata,
  spec: { ...(permissions !== undefined && { permissions }) },
});

/** @param allows whether a right is there; throws where the API server doesn't answer */
function rights(allows: (resource: string) => boolean): {
  of: RequesterRights;
  asked: SubjectAccessReview['spec'][];
  /** Lets time pass. */
  pass: (ms: number) => void;
} {
  const asked: SubjectAccessReview['spec'][] = [];
  class Reviews extends MemoryClient {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- asked for reviews alone
    override create = (async (_resource: unknown, { spec }: SubjectAccessReview) => {
      asked.push(spec);
      const allowed = allows(spec.resourceAttributes.resource);
      return await Promise.resolve({ metadata: { name: '' }, spec, status: { allowed } });
    }) as MemoryClient['create'];
  }
  let now = 0;
  const pass = (ms: number): void => {
    now += ms;
  };
  return { of: new RequesterRights(new Reviews(() => 0), () => now), asked, pass };
}

function stored(verdict: RequesterVerdict, generation = 1): Workflow {
  const condition = {
    ...verdict.finding,
    observedGeneration: generation,
    lastTransitionTime: timestamp(0),
  };
  return {
    ...workflow,
    status: {
      conditions: [condition],
      ...(verdict.digest !== undefined && { requester: verdict.digest }),
    },
  };
}

describe('who asks for an automation', () => {
  it('is asked about by name and groups, for each workload once, and not again', async () => {
    const { of, asked } = rights(() => true);
    const verdict = await of.ofWorkflow(workflow, workflow.spec, signal);
    expect(verdict).toMatchObject({ finding: { status: 'True', reason: 'Allowed' } });
    expect(verdict.problem).toBeUndefined();
    const base = { namespace: 'finance', verb: 'update' };
    expect(asked).toEqual([
      {
        user: 'alice',
        groups: ['finance', 'system:authenticated'],
        resourceAttributes: { ...base, group: 'apps', resource: 'deployments', name: 'poster' },
      },
      {
        user: 'alice',
        groups: ['finance', 'system:authenticated'],
        resourceAttributes: { ...base, group: 'batch', resource: 'cronjobs' },
      },
    ]);
    const known = stored(verdict);
    expect(await of.ofWorkflow(known, known.spec, signal)).toEqual(verdict);
    expect(asked).toHaveLength(2);
    // By somebody else, it is another question.
    const other = { ...stamps, [annotation.changedBy]: 'bob' };
    const changed = { ...known, metadata: { ...known.metadata, annotations: other } };
    await of.ofWorkflow(changed, changed.spec, signal);
    expect(asked).toHaveLength(4);
  });

  it('holds it where he lacks a right, which is named, and is asked about again after a minute', async () => {
    const { of, asked, pass } = rights((resource) => resource !== 'secrets');
    const spec = identity([
      { apiGroups: [''], resources: ['configmaps'], verbs: ['get', 'list'], reason: 'settings' },
      {
        apiGroups: [''],
        resources: ['secrets'],
        resourceNames: ['db'],
        verbs: ['get'],
        reason: 'db',
      },
    ]);
    const verdict = await of.ofIdentity(spec, spec.spec, signal);
    expect(verdict.problem?.reason).toBe('RequesterNotAllowed');
    expect(verdict.finding.message).toContain(
      "alice asked for what he isn't allowed himself: get secrets db.",
    );
    expect(verdict.againMs).toBe(60_000);
    const again = { ...spec, status: stored(verdict).status } as AutomationIdentity;
    pass(59_000);
    expect((await of.ofIdentity(again, again.spec, signal)).againMs).toBe(1_000);
    expect(asked).toHaveLength(3);
    // A Workflow of that name is something else.
    await of.ofWorkflow(workflow, workflow.spec, signal);
    expect(asked).toHaveLength(5);
    pass(1_000);
    await of.ofIdentity(again, again.spec, signal);
    expect(asked).toHaveLength(8);
    expect(isHeldBack(stored(verdict))).toBe(true);
  });

  it('holds it where the API server does not answer, or too much is asked', async () => {
    const silent = rights(() => {
      throw new Error('no answer');
    });
    const failed = await silent.of.ofWorkflow(workflow, workflow.spec, signal);
    expect(failed.finding).toMatchObject({ status: 'Unknown', reason: 'RequesterNotAsked' });
    expect(failed.problem?.reason).toBe('RequesterNotAsked');
    expect(isHeldBack(stored(failed))).toBe(true);

    const { of, asked } = rights(() => true);
    const names = (of_: string): string[] => Array.from({ length: 16 }, (_, at) => `${of_}${at}`);
    const spec = identity([
      { apiGroups: [''], resources: names('r'), verbs: names('v'), reason: 'all' },
      { apiGroups: [''], resources: ['configmaps'], verbs: ['get'], reason: 'settings' },
    ]);
    const verdict = await of.ofIdentity(spec, spec.spec, signal);
    expect(verdict.problem?.reason).toBe('RequesterNotAllowed');
    expect(verdict.finding.message).toContain('more than 256 single rights');
    expect(asked).toEqual([]);
  });

  it('is unknown where nobody was stamped, which holds nothing', async () => {
    const { of, asked } = rights(() => false);
    const before = { ...workflow, metadata: { namespace: 'finance', name: 'poster' } };
    const verdict = await of.ofWorkflow(before, before.spec, signal);
    expect(verdict.finding).toMatchObject({ status: 'Unknown', reason: 'RequesterUnknown' });
    expect(verdict.problem).toBeUndefined();
    expect(asked).toEqual([]);
    expect(isHeldBack(before)).toBe(false);
  });

  it('is a ServiceAccount by its name alone, whose groups everybody knows', async () => {
    const { of, asked } = rights(() => false);
    const user = 'system:serviceaccount:flux-system:kustomize-controller';
    const applied = {
      ...workflow,
      metadata: { ...workflow.metadata, annotations: { [annotation.changedBy]: user } },
    };
    const verdict = await of.ofWorkflow(applied, applied.spec, signal);
    expect(verdict.problem?.reason).toBe('RequesterNotAllowed');
    const groups = [
      'system:serviceaccounts',
      'system:serviceaccounts:flux-system',
      'system:authenticated',
    ];
    expect(asked[0]).toMatchObject({ user, groups });
    const person = {
      ...workflow,
      metadata: { ...workflow.metadata, annotations: { [annotation.changedBy]: 'alice' } },
    };
    const unknown = await of.ofWorkflow(person, person.spec, signal);
    expect(unknown.finding.reason).toBe('RequesterUnknown');
  });

  it('holds back what nobody has looked at yet', async () => {
    const { of } = rights(() => true);
    const verdict = await of.ofWorkflow(workflow, workflow.spec, signal);
    expect(isHeldBack(workflow)).toBe(true);
    expect(isHeldBack(stored(verdict, 0))).toBe(true);
    expect(isHeldBack(stored(verdict))).toBe(false);
  });
});
