import { expect, it } from 'vitest';
import { resources } from '../../api/resources.ts';
import { ApiError } from '../../runtime/errors.ts';
import { MemoryClient } from '../identity/memory-client.testing.ts';
import { Contests } from './contested.ts';
import { pausingByAdmission } from './pausing.ts';
import { jobTrackingFinalizer } from './plan.ts';
import { deletePods } from './stop.ts';

it('deletes a pod of a Job also where somebody refuses its update, and tells of that', async () => {
  const client = new MemoryClient(() => 0);
  const pod = client.put(resources.pods, {
    metadata: { namespace: 'billing', name: 'run', finalizers: [jobTrackingFinalizer] },
    spec: { serviceAccountName: 'poster' },
    status: { phase: 'Running' },
  });
  client.beforeWrite = ({ verb }) => {
    if (verb === 'patch') {
      throw new ApiError('failed calling webhook', { status: 500, reason: 'InternalError' });
    }
  };
  const [outcome] = await deletePods([pod], {
    client,
    pausing: pausingByAdmission(client),
    parallelism: 1,
    podGraceSeconds: 30,
    contests: new Contests({ clock: () => 0 }),
    signal: new AbortController().signal,
  });
  expect(client.writes.map(({ verb, kind }) => `${verb} ${kind}`)).toContain('delete Pod');
  expect(outcome).toHaveProperty('error');
});
