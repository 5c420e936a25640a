import { appendFile, mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { recordedRights, rightsOf, rightsUsedBy } from './rights.ts';

const by = (role: string): Record<string, string> => ({
  'authorization.k8s.io/reason': `RBAC: allowed by ClusterRoleBinding "automation-guardrails-${role}" of ClusterRole "automation-guardrails-${role}" to ServiceAccount "automation-guardrails/automation-guardrails"`,
});

describe('the rights that a request used', () => {
  const get = { verb: 'get', objectRef: { resource: 'secrets' }, annotations: by('operator') };

  it.each([
    ['one of the core group', get, ['operator: get secrets']],
    [
      'a subresource',
      {
        ...get,
        verb: 'patch',
        objectRef: { apiGroup: 'batch', resource: 'cronjobs', subresource: 'status' },
      },
      ['operator: patch cronjobs/status.batch'],
    ],
    [
      'an apply that created',
      { ...get, verb: 'patch', responseStatus: { code: 201 } },
      ['operator: patch secrets', 'operator: create secrets'],
    ],
    ['one that a role of the cluster allowed', { ...get, annotations: {} }, []],
    ['one for no resource', { verb: 'get', annotations: by('operator') }, []],
  ])('%s', (_, event, rights) => {
    expect(rightsUsedBy(event)).toEqual(rights);
  });

  it('are read from every log of a folder, but for a line that was cut off', async () => {
    const folder = await mkdtemp(path.join(os.tmpdir(), 'automation-guardrails-rights-'));
    try {
      const list = { ...get, verb: 'list' };
      await appendFile(path.join(folder, 'a.log'), `${JSON.stringify(get)}\n{"verb":"pa`);
      await appendFile(path.join(folder, 'b.log'), `${JSON.stringify(list)}\n`);
      const rights = await recordedRights(folder);
      expect([...rights].toSorted()).toEqual(['operator: get secrets', 'operator: list secrets']);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe('the rights that a role grants', () => {
  it('are every verb on every resource of each of its rules', () => {
    const rules = [
      { apiGroups: ['apps'], resources: ['deployments', 'daemonsets'], verbs: ['get', 'patch'] },
      { apiGroups: [''], resources: ['pods'], verbs: ['delete'] },
    ];
    expect([...rightsOf([{ name: 'x', rules }])]).toEqual([
      'x: get deployments.apps',
      'x: patch deployments.apps',
      'x: get daemonsets.apps',
      'x: patch daemonsets.apps',
      'x: delete pods',
    ]);
  });
});
