import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { FakeApiServer } from '../../../test/fault/fake-api-server.ts';
import { annotation, stoppedSelector } from '../../api/names.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import type { KubeObject } from '../../api/objects.ts';
import {
  projectWorkload,
  workloadResources,
  type Workload,
  type WorkloadKind,
} from '../../api/workload.ts';
import { ApiServerClient, type KubeClient } from '../../runtime/client.ts';
import {
  adaptivePausing,
  disownOperations,
  pausingByPatch,
  type Paused,
  type Pausing,
} from './pausing.ts';
import { ownsPause } from './contested.ts';
import { isRestored, restoreOf } from './plan.ts';

const killSwitch: KillSwitch = {
  metadata: { name: 'invoice', namespace: 'finance', uid: 'kill-1' },
  spec: { workflow: 'invoice', reason: 'runaway', engagedBy: 'alice' },
};
const { signal } = new AbortController();

let server: FakeApiServer;
let client: ApiServerClient;

beforeEach(async () => {
  server = await new FakeApiServer().start();
  client = new ApiServerClient({ kubeConfig: server.kubeConfig(), userAgent: 'test' });
});

afterEach(async () => {
  await client.close();
  await server.stop();
});

interface RawSpec {
  replicas?: number;
  suspend?: boolean;
  template?: { spec: { serviceAccountName: string; nodeSelector?: Record<string, string> } };
}

type Raw = KubeObject & { spec: RawSpec };

const template = (nodeSelector?: Record<string, string>): Required<RawSpec>['template'] => ({
  spec: { serviceAccountName: 'invoice', ...(nodeSelector && { nodeSelector }) },
});

function put(kind: WorkloadKind, spec: RawSpec, annotations?: Record<string, string>): Workload {
  const object: Raw = {
    metadata: {
      name: 'work',
      namespace: 'finance',
      ...(annotations !== undefined && { annotations }),
    },
    spec: { template: template(), ...spec },
  };
  return projectWorkload(kind, server.put(workloadResources[kind], object));
}

function stored(kind: WorkloadKind): Raw {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- as it was put there
  return server.get(workloadResources[kind], 'finance/work') as unknown as Raw;
}

function kept(kind: WorkloadKind): string | undefined {
  return restoreOf(projectWorkload(kind, stored(kind)))?.text;
}

/** Does the second step of a release: the value, without the clean-up. */
async function resume(pausing: Pausing, kind: WorkloadKind): Promise<void> {
  const workload = projectWorkload(kind, stored(kind));
  const restore = restoreOf(workload);
  if (restore === undefined || isRestored(workload, restore)) return;
  const operations = await pausing.resume(killSwitch, workload, restore, signal);
  await client.jsonPatch(
    workloadResources[kind],
    { namespace: 'finance', name: 'work' },
    operations,
  );
}

describe('pausing by patch', () => {
  it.each<[WorkloadKind, RawSpec, RawSpec, string]>([
    ['Deployment', { replicas: 3 }, { replicas: 0 }, '3'],
    ['ReplicaSet', { replicas: 1 }, { replicas: 0 }, '1'],
    ['CronJob', { suspend: false }, { suspend: true }, 'false'],
    ['Job', { suspend: false }, { suspend: true }, 'false'],
    ['DaemonSet', {}, { template: template({ [stoppedSelector]: 'true' }) }, 'false'],
    [
      'DaemonSet',
      { template: template({ disk: 'ssd' }) },
      { template: template({ disk: 'ssd', [stoppedSelector]: 'true' }) },
      'false',
    ],
  ])(
    '%s %j: keeps what was asked for, and puts exactly that back',
    async (kind, spec, paused, text) => {
      const pausing = pausingByPatch(client);
      for (const annotations of [undefined, { 'example.com/other': 'stays' }]) {
        const workload = put(kind, spec, annotations);
        const before = stored(kind).spec;
        const answer = await pausing.pause(killSwitch, workload, signal);
        expect(answer !== undefined && projectWorkload(kind, answer.stored).isPaused).toBe(true);
        expect(stored(kind).spec).toMatchObject(paused);
        expect(stored(kind).metadata.annotations).toEqual({
          ...annotations,
          [restoreOf(projectWorkload(kind, stored(kind)))?.annotation ?? '']: text,
          [annotation.touch]: 'kill-1',
        });
        await resume(pausing, kind);
        const { nodeSelector, ...pod } = stored(kind).spec.template?.spec ?? template().spec;
        const isEmpty = Object.keys(nodeSelector ?? {}).length === 0;
        const podSpec = { ...pod, ...(!isEmpty && { nodeSelector }) };
        expect({ ...stored(kind).spec, template: { spec: podSpec } }).toEqual(before);
      }
    },
  );

  it('leaves alone what is paused, over, gone or another one by now', async () => {
    const pausing = pausingByPatch(client);
    const asleep = put('Deployment', { replicas: 0 });
    await pausing.pause(killSwitch, asleep, signal);
    expect(kept('Deployment')).toBeUndefined();
    const other = put('Job', { suspend: false });
    other.metadata.uid = 'another';
    expect(await pausing.pause(killSwitch, other, signal)).toBeUndefined();
    expect(kept('Job')).toBeUndefined();
    const gone = put('StatefulSet', { replicas: 2 });
    await client.delete(workloadResources.StatefulSet, { namespace: 'finance', name: 'work' });
    expect(await pausing.pause(killSwitch, gone, signal)).toBeUndefined();
  });

  it('never overwrites what it keeps with the paused value, however often it is repeated', async () => {
    const pausing = pausingByPatch(client);
    const workload = put('Deployment', { replicas: 3 });
    await Promise.all([1, 2, 3].map(() => pausing.pause(killSwitch, workload, signal)));
    await pausing.pause(killSwitch, workload, signal);
    expect(kept('Deployment')).toBe('3');
  });

  it("keeps the owner's last word, whenever he writes", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat({ max: 4 }), { maxLength: 4 }), async (writes) => {
        const workload = put('Deployment', { replicas: 7 });
        const pending = [...writes];
        let last = 7;
        const racing: KubeClient = Object.assign(Object.create(client) as KubeClient, {
          get: async (...args: Parameters<KubeClient['get']>) => {
            const answer = await client.get(...args);
            const replicas = pending.shift();
            if (replicas !== undefined) {
              last = replicas;
              const patch = { spec: { replicas } };
              const key = { namespace: 'finance', name: 'work' };
              await client.mergePatch(workloadResources.Deployment, key, patch);
            }
            return answer;
          },
          jsonPatch: client.jsonPatch.bind(client),
        });
        await pausingByPatch(racing).pause(killSwitch, workload, signal);
        const text = kept('Deployment');
        if (text === undefined) {
          // His own zero is no pause of ours, and wakes nothing later.
          expect(writes).toContain(0);
        } else {
          expect(stored('Deployment').spec.replicas).toBe(0);
          expect(text).toBe(String(last));
          expect(text).not.toBe('0');
        }
      }),
      { numRuns: 50 },
    );
  });
});

describe('pausing as the API server turns out to work', () => {
  const running = (): Workload => put('Deployment', { replicas: 3 });

  const answerOf = (spec: RawSpec): Paused => {
    const work: Raw = { metadata: { name: 'work' }, spec };
    return { stored: work, found: work };
  };

  function adaptive(isInForce: boolean | undefined, answer: boolean | undefined) {
    const asked: string[] = [];
    let paused = false;
    const byAdmission: Pausing = {
      pause: async () => {
        asked.push('admission');
        const { replicas } = paused ? { replicas: 0 } : { replicas: 3 };
        return answerOf({ replicas });
      },
      resume: async () => [],
    };
    const byPatch: Pausing = {
      pause: async () => {
        asked.push('patch');
        return answerOf({ replicas: 0 });
      },
      resume: async () => [],
    };
    const mutation = {
      isInForce,
      ask: async () => {
        asked.push('question');
        return answer;
      },
    };
    return {
      asked,
      pausing: adaptivePausing({ byAdmission, byPatch, mutation }),
      rewrites: () => {
        paused = true;
      },
    };
  }

  it.each<[string, boolean | undefined, boolean | undefined, string[]]>([
    ['known to write nothing', false, false, ['patch']],
    ['unknown, and it writes nothing', undefined, false, ['admission', 'question', 'patch']],
    ['believed to write, and it does no more', true, false, ['admission', 'question', 'patch']],
    ['lagging', true, true, ['admission', 'question']],
  ])('%s', async (_, isInForce, answer, expected) => {
    const { asked, pausing } = adaptive(isInForce, answer);
    await pausing.pause(killSwitch, running(), signal);
    expect(asked).toEqual(expected);
  });

  it('asks nothing where admission does its part', async () => {
    const { asked, pausing, rewrites } = adaptive(undefined, undefined);
    rewrites();
    await pausing.pause(killSwitch, running(), signal);
    expect(asked).toEqual(['admission']);
  });
});

describe('what the operator owns', () => {
  const owns =
    (kind: WorkloadKind) =>
    (fields: unknown): boolean =>
      ownsPause(kind, fields);
  const ours = (fieldsV1: object, rest: object = {}): object => ({
    manager: 'automation-guardrails',
    operation: 'Update',
    fieldsV1,
    ...rest,
  });
  const owner = {
    manager: 'kubectl',
    operation: 'Apply',
    fieldsV1: { 'f:spec': { 'f:replicas': {} } },
  };
  const replicas = ours({ 'f:spec': { 'f:replicas': {} } });
  const object = (...managedFields: object[]): KubeObject => ({
    metadata: { name: 'work', managedFields },
  });

  it('goes with the pause', () => {
    expect(disownOperations(object(owner, replicas), owns('Deployment'))).toEqual([
      { op: 'test', path: '/metadata/managedFields/1', value: replicas },
      { op: 'remove', path: '/metadata/managedFields/1' },
    ]);
  });

  it("stays where it is something else, a status, or somebody else's", () => {
    const touched = ours({ 'f:metadata': { 'f:annotations': {} } });
    const status = ours({ 'f:spec': { 'f:replicas': {} } }, { subresource: 'status' });
    const of = object(owner, touched, status);
    expect(disownOperations(of, owns('Deployment'))).toEqual([]);
    expect(disownOperations(object(owner, replicas), owns('Job'))).toEqual([]);
  });

  it('goes also when nobody else owns anything: an empty list would mean "as before"', () => {
    expect(disownOperations(object(replicas)).at(-1)).toEqual({
      op: 'replace',
      path: '/metadata/managedFields',
      value: [{}],
    });
  });
});
