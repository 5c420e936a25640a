import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { AutomationIdentity, Permission } from '../../api/automation-identity.ts';
import { allowedOfRefused, anyPermission, identityName, unlimited } from './permissions.testing.ts';
import { planIdentity } from './plan.ts';
import { refusalOf } from './refused.ts';
import { rulesOf } from './rules.ts';

const identity: AutomationIdentity = {
  metadata: { namespace: 'billing', name: identityName, uid: 'u' },
  spec: {},
};

const sound: Permission = {
  apiGroups: [''],
  resources: ['configmaps'],
  verbs: ['get'],
  reason: 'its settings',
};

describe('what no automation is granted', () => {
  it('is in no Role that is planned, whatever a spec says that was stored once', () => {
    let refused = 0;
    let granted = 0;
    fc.assert(
      fc.property(fc.array(anyPermission, { maxLength: 4 }), (permissions) => {
        const { role } = planIdentity(identity, { permissions }, {}, unlimited);
        const rules = role?.rules ?? [];
        expect(allowedOfRefused(rules)).toEqual([]);
        granted += rules.length;
        refused += permissions.length - rules.length;
      }),
      { numRuns: 2_000 },
    );
    expect(refused).toBeGreaterThan(500);
    expect(granted).toBeGreaterThan(100);
  });

  it('does not stand in the way of the others, and is named', () => {
    const everything = { ...sound, verbs: ['*'] };
    const { role, problems } = planIdentity(
      identity,
      { permissions: [everything, sound, { ...sound, resources: ['pods/exec'] }] },
      {},
      unlimited,
    );
    expect(role?.rules).toEqual(rulesOf([sound]));
    expect(problems).toMatchObject([{ reason: 'PermissionsRefused' }]);
    expect(problems[0]?.message).toContain("'*', pods/exec");
  });

  it.each<[string, Partial<Permission>]>([
    ['its own credentials', { resources: ['secrets'], resourceNames: [`aid.${identityName}.db`] }],
    ['creating secrets', { resources: ['secrets'], verbs: ['create'] }],
    ['reading namespaces', { resources: ['namespaces'] }],
    [
      'namespaces of another group',
      { apiGroups: ['x.io'], resources: ['namespaces'], verbs: ['patch'] },
    ],
    ['reading roles', { apiGroups: ['rbac.authorization.k8s.io'], resources: ['roles'] }],
  ])('leaves %s', (_, permission) => {
    expect(refusalOf({ ...sound, ...permission }, identityName)).toBeUndefined();
  });
});
