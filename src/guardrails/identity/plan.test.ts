import { describe, expect, it } from 'vitest';
import type { AutomationIdentity, AutomationIdentitySpec } from '../../api/automation-identity.ts';
import { annotation, label } from '../../api/names.ts';
import type { Namespace, PolicyRule } from '../../api/objects.ts';
import { unlimited } from './permissions.testing.ts';
import {
  childMetadata,
  planIdentity,
  planRevoked,
  readSpec,
  whatIsMissing,
  type IdentityChildren,
  type IdentityPlan,
} from './plan.ts';

const permission = {
  apiGroups: [''],
  resources: ['configmaps'],
  verbs: ['get', 'list'],
  reason: 'reads its settings',
};

const complete: AutomationIdentitySpec = {
  purpose: 'posts invoices',
  owner: { team: 'finance', contact: 'a@example.com', escalation: 'b@example.com' },
  permissions: [permission],
};

function identityWith(spec: unknown): AutomationIdentity {
  return {
    metadata: { name: 'poster', namespace: 'billing', uid: 'uid-1' },
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what the API server may hold
    spec: spec as AutomationIdentitySpec,
  };
}

const guarded: Namespace = {
  metadata: { name: 'billing', labels: { [label.environment]: 'prod' } },
};

describe('whatIsMissing', () => {
  it.each<{ what: string; spec: unknown; namespace?: Namespace | undefined; found: string[] }>([
    { what: 'nothing', spec: complete, found: [] },
    { what: 'the whole owner', spec: { ...complete, owner: undefined }, found: ['OwnerMissing'] },
    {
      what: 'a blank contact',
      spec: { ...complete, owner: { ...complete.owner, contact: ' ' } },
      found: ['OwnerMissing'],
    },
    { what: 'the purpose', spec: { ...complete, purpose: '' }, found: ['PurposeMissing'] },
    {
      what: 'the environment label',
      spec: complete,
      namespace: { metadata: { name: 'billing' } },
      found: ['NamespaceNotGuarded'],
    },
    {
      what: 'the namespace itself',
      spec: complete,
      namespace: undefined,
      found: ['NamespaceNotGuarded'],
    },
    {
      what: 'a spec that can be read',
      spec: { ...complete, permissions: 'all of them' },
      found: ['SpecMalformed'],
    },
    {
      what: 'everything',
      spec: undefined,
      namespace: undefined,
      found: ['SpecMalformed', 'OwnerMissing', 'PurposeMissing', 'NamespaceNotGuarded'],
    },
  ])('finds $what', ({ spec, found, ...rest }) => {
    const namespace = 'namespace' in rest ? rest.namespace : guarded;
    const missing = whatIsMissing({ identity: identityWith(spec), namespace });
    expect(missing.map(({ reason }) => reason)).toEqual(found);
  });

  it('names exactly the parts that are missing', () => {
    const identity = identityWith({ ...complete, owner: { team: 'finance' } });
    expect(whatIsMissing({ identity, namespace: guarded })).toEqual([
      { reason: 'OwnerMissing', message: 'Missing spec.owner.contact, spec.owner.escalation.' },
    ]);
  });

  it('says how to guard the namespace', () => {
    const [missing] = whatIsMissing({ identity: identityWith(complete), namespace: undefined });
    expect(missing?.message).toContain(`kubectl label namespace billing ${label.environment}=prod`);
  });
});

describe('readSpec', () => {
  it.each([undefined, null, 7, 'text', [], { permissions: [{}] }, { secrets: [{ type: 'Key' }] }])(
    'is total: %j is malformed',
    (spec) => {
      expect(readSpec(identityWith(spec))).toHaveProperty('malformed');
    },
  );
});

describe('planIdentity', () => {
  const identity = identityWith(complete);
  const plan = (
    live: IdentityChildren,
    isWithheld = false,
    spec: AutomationIdentitySpec = complete,
  ) => planIdentity(identity, spec, live, { ...unlimited, withheld: isWithheld });
  const full = plan({});
  const standing: IdentityChildren = {
    mark: full.mark,
    serviceAccount: full.serviceAccount,
    role: full.role,
    roleBinding: full.roleBinding,
  };

  it('wants a ServiceAccount without automounted token, its mark, a Role and a RoleBinding of one name', () => {
    const metadata = childMetadata(identity, 'poster');
    const { mark, ...rest } = full;
    expect(mark).toEqual({
      metadata: childMetadata(identity, 'poster.identity'),
      roleRef: {
        apiGroup: 'rbac.authorization.k8s.io',
        kind: 'ClusterRole',
        name: 'automation-guardrails-identity',
      },
      subjects: [{ kind: 'ServiceAccount', name: 'poster', namespace: 'billing' }],
    });
    expect(rest).toEqual({
      serviceAccount: { metadata, automountServiceAccountToken: false },
      role: {
        metadata,
        rules: [{ apiGroups: [''], resources: ['configmaps'], verbs: ['get', 'list'] }],
      },
      roleBinding: {
        metadata,
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'poster' },
        subjects: [{ kind: 'ServiceAccount', name: 'poster', namespace: 'billing' }],
      },
      remove: { roleBinding: false, role: false },
      problems: [],
    });
    expect(metadata).toMatchObject({
      name: 'poster',
      namespace: 'billing',
      labels: { [label.managedBy]: 'automation-guardrails', [label.identity]: 'poster' },
      ownerReferences: [{ kind: 'AutomationIdentity', uid: 'uid-1', controller: true }],
    });
  });

  it('wants neither Role nor RoleBinding without permissions, and removes those that stand', () => {
    const { role, roleBinding, remove, serviceAccount } = plan(standing, false, {
      ...complete,
      permissions: [],
    });
    expect({ role, roleBinding, remove }).toEqual({
      role: undefined,
      roleBinding: undefined,
      remove: { roleBinding: true, role: true },
    });
    expect(serviceAccount).toBeDefined();
  });

  describe('while withheld', () => {
    it('creates nothing', () => {
      expect(plan({}, true)).toEqual({
        remove: { roleBinding: false, role: false },
        problems: [],
      });
    });

    it('keeps and repairs what stands', () => {
      expect(plan(standing, true)).toEqual(full);
    });

    it('keeps the mark of a ServiceAccount that is gone', () => {
      const { mark, serviceAccount } = plan({ mark: full.mark }, true);
      expect(mark).toEqual(full.mark);
      expect(serviceAccount).toBeUndefined();
    });

    it('gives a ServiceAccount back without a mark where no mark can be made', () => {
      const circumstances = { ...unlimited, withheld: true, isUnguarded: true, kept: {} };
      const restored = planIdentity(identity, complete, {}, circumstances);
      expect(restored.serviceAccount).toEqual(full.serviceAccount);
      expect(restored.mark).toBeUndefined();
      const kept = planIdentity(identity, complete, { mark: full.mark }, circumstances);
      expect(kept.mark?.subjects).toEqual(full.mark?.subjects);
    });

    it('takes permissions away, and gives none', () => {
      const other = { ...permission, resources: ['secrets'], resourceNames: ['x'] };
      const less = { ...permission, verbs: ['get'] };
      const { role } = plan(standing, true, { ...complete, permissions: [less, other] });
      expect(role?.rules).toEqual([{ apiGroups: [''], resources: ['configmaps'], verbs: ['get'] }]);
    });

    it('does not put back a binding that was removed, nor one that lost its subject', () => {
      expect(plan({ ...standing, roleBinding: undefined }, true).roleBinding).toBeUndefined();
      const emptied = { ...full.roleBinding!, subjects: [] };
      const { roleBinding, remove } = plan({ ...standing, roleBinding: emptied }, true);
      expect(roleBinding).toBeUndefined();
      expect(remove.roleBinding).toBe(true);
    });

    it('removes a binding whose ServiceAccount is gone, which a stranger could inherit', () => {
      const { roleBinding, remove } = plan({ ...standing, serviceAccount: undefined }, true);
      expect(roleBinding).toBeUndefined();
      expect(remove).toEqual({ roleBinding: true, role: false });
    });
  });

  describe('where not everything can be granted', () => {
    const withCeiling = (
      live: IdentityChildren,
      grantable: readonly PolicyRule[] | undefined,
    ): IdentityPlan => planIdentity(identity, complete, live, { withheld: false, grantable });
    const get: PolicyRule[] = [{ apiGroups: [''], resources: ['configmaps'], verbs: ['get'] }];

    it('grants nothing new and names what is too much, though the operator may hold it', () => {
      const { role, roleBinding, problems } = withCeiling({}, get);
      expect({ role, roleBinding }).toEqual({ role: undefined, roleBinding: undefined });
      expect(problems).toMatchObject([{ reason: 'PermissionsNotGrantable' }]);
      expect(problems[0]?.message).toContain('list configmaps');
      expect(problems[0]?.message).not.toContain('get');
    });

    it('takes away what can’t be granted any more', () => {
      expect(withCeiling(standing, get).role?.rules).toEqual(get);
      expect(withCeiling(standing, []).remove).toEqual({ roleBinding: true, role: true });
    });

    it('grants nothing, and takes nothing, until it is known what can be granted', () => {
      expect(withCeiling({}, undefined)).toMatchObject({
        problems: [{ reason: 'GrantableNotRead' }],
      });
      expect(withCeiling({}, undefined).role).toBeUndefined();
      expect(withCeiling(standing, undefined)).toEqual(full);
    });
  });

  describe('after a revocation', () => {
    const text = '{"poster":{}}';
    const annotations = { [annotation.restoreServiceAccount]: text };
    const mark = full.mark!;
    const bearing = { ...mark, metadata: { ...mark.metadata, annotations } };

    it('leaves the mark alone, with what it bears', () => {
      expect(planRevoked(identity, { ...standing, mark }, text)).toEqual({
        mark: bearing,
        remove: { roleBinding: true, role: true },
        problems: [],
      });
      expect(planRevoked(identity, {}, undefined)).toEqual({
        remove: { roleBinding: false, role: false },
        problems: [],
      });
    });

    it('keeps that until the ServiceAccount is back', () => {
      const granted = { ...unlimited, withheld: false };
      expect(planIdentity(identity, complete, { mark: bearing }, granted).mark).toEqual(bearing);
      const back = { ...standing, mark: bearing };
      expect(planIdentity(identity, complete, back, granted).mark).toEqual(mark);
    });
  });
});
