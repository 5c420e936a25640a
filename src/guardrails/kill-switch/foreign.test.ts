import { beforeEach, describe, expect, it } from 'vitest';
import type { KillSwitch } from '../../api/kill-switch.ts';
import { defineResource } from '../../api/resources.ts';
import { silentLogger } from '../../observability/logger.ts';
import { ApiError } from '../../runtime/errors.ts';
import { MemoryClient } from '../identity/memory-client.testing.ts';
import { foreignKinds } from './foreign-kinds.ts';
import { ForeignWorkloads, type ForeignStop } from './foreign.ts';

const argoWorkflows = defineResource('argoproj.io', 'v1alpha1', 'Workflow', 'workflows');
const context = { signal: new AbortController().signal, log: silentLogger() };

let now = 0;
let client: MemoryClient;
let foreign: ForeignWorkloads;
let ended: (readonly string[])[];

function run(name: string, serviceAccountName = 'invoice'): void {
  const workflow = { metadata: { name, namespace: 'finance' }, spec: { serviceAccountName } };
  client.put(argoWorkflows, workflow);
}

function stop(uid = 'uid-1'): Promise<ForeignStop> {
  const killSwitch: KillSwitch = {
    metadata: { name: 'invoice', namespace: 'finance', uid },
    spec: { workflow: 'invoice', reason: 'runaway' },
  };
  return foreign.stop(killSwitch, context);
}

beforeEach(() => {
  now = 1_000_000;
  ended = [];
  client = new MemoryClient(() => now);
  foreign = new ForeignWorkloads({
    client,
    kinds: foreignKinds,
    workloads: { list: () => [], byIndex: () => [] },
    parallelism: 4,
    clock: () => now,
    onEnded: (_, names) => ended.push(names),
  });
});

describe('other projects’ workloads of a kill', () => {
  it('are told of once where no release resumes them, whoever else runs there', async () => {
    run('posting');
    run('of-another', 'reporting');
    expect(await stop()).toEqual({ total: 1, running: [], unlisted: [] });
    now += 60_000;
    await stop();
    expect(ended).toEqual([['Workflow posting']]);
    expect(client.writes.map(({ name }) => name)).toEqual(['posting']);
  });

  it.each([
    ['within a minute of a look that found none running', 0, 'uid-1', 0],
    ['a minute later', 50_000, 'uid-1', 1],
    ['at once for another kill of that name', 0, 'uid-2', 1],
  ])('are looked at: %s', async (_, laterMs, uid, found) => {
    await stop();
    run('late');
    now += laterMs;
    expect((await stop(uid)).total).toBe(found);
  });

  it('are looked at each time where one still runs', async () => {
    run('posting');
    client.beforeWrite = () => {
      throw new ApiError('busy', { status: 503, reason: 'ServiceUnavailable' });
    };
    expect((await stop()).running).toEqual(['Workflow posting']);
    client.beforeWrite = () => undefined;
    expect((await stop()).running).toEqual([]);
  });

  it('are looked at again after a release had begun', async () => {
    await stop();
    run('late');
    foreign.forget('finance/invoice');
    expect((await stop()).total).toBe(1);
  });
});
