import { beforeEach, describe, expect, it } from 'vitest';
import type { AutomationIdentity, Permission } from '../../api/automation-identity.ts';
import { resources } from '../../api/resources.ts';
import { Applier } from '../../runtime/applier.ts';
import { ApiError } from '../../runtime/errors.ts';
import { applyIdentity } from './apply.ts';
import { MemoryClient } from './memory-client.testing.ts';
import type { Problem } from '../requirements.ts';
import { unlimited } from './permissions.testing.ts';
import { markNameOf, planIdentity, type IdentityChildren } from './plan.ts';

const key = { namespace: 'billing', name: 'poster' };
const identity: AutomationIdentity = { metadata: { ...key, uid: 'uid-of-poster' }, spec: {} };
const markKey = { namespace: 'billing', name: markNameOf('poster') };
const reads: Permission = {
  apiGroups: [''],
  resources: ['configmaps'],
  verbs: ['get', 'list'],
  reason: 'reads its settings',
};

let client: MemoryClient;

beforeEach(() => {
  client = new MemoryClient(() => 0);
});

function live(): IdentityChildren {
  return {
    mark: client.find(resources.roleBindings, markKey),
    serviceAccount: client.find(resources.serviceAccounts, key),
    role: client.find(resources.roles, key),
    roleBinding: client.find(resources.roleBindings, key),
  };
}

function apply(permissions: Permission[], children = live()): Promise<Problem[]> {
  return applyIdentity(planIdentity(identity, { permissions }, children, unlimited), children, {
    applier: new Applier({ client }),
    signal: new AbortController().signal,
  });
}

function written(): string[] {
  return client.writes.splice(0).map(({ verb, kind }) => `${verb} ${kind}`);
}

/** Answers as the escalation check of RBAC does, for rules that contain `verb`. */
function refuseToGrant(verb: string): void {
  const isRefused = (): boolean =>
    JSON.stringify(client.find(resources.roles, key)?.rules ?? []).includes(verb);
  client.afterWrite = ({ kind, verb: how }) => {
    if (kind !== 'Role' || how === 'delete' || !isRefused()) return;
    client.remove(resources.roles, key);
    if (before !== undefined) client.put(resources.roles, before);
    throw new ApiError(
      'roles "poster" is forbidden: user "operator" is attempting to grant RBAC permissions not currently held:\n{APIGroups:["apps"], Resources:["deployments"], Verbs:["delete"]}',
      { status: 403, reason: 'Forbidden' },
    );
  };
  let before = client.find(resources.roles, key);
  client.beforeWrite = () => {
    before = client.find(resources.roles, key);
  };
}

describe('applyIdentity', () => {
  it('marks the ServiceAccount before it exists, writes the Role before the RoleBinding that grants it, and then nothing more', async () => {
    expect(await apply([reads])).toEqual([]);
    expect(written()).toEqual([
      'create RoleBinding',
      'create ServiceAccount',
      'create Role',
      'create RoleBinding',
    ]);
    expect(live().mark).toMatchObject({
      roleRef: { kind: 'ClusterRole', name: 'automation-guardrails-identity' },
      subjects: [{ kind: 'ServiceAccount', name: 'poster', namespace: 'billing' }],
    });
    expect(await apply([reads])).toEqual([]);
    expect(written()).toEqual([]);
  });

  it('removes the RoleBinding before the Role', async () => {
    await apply([reads]);
    written();
    await apply([]);
    expect(written()).toEqual(['delete RoleBinding', 'delete Role']);
    await apply([]);
    expect(written()).toEqual([]);
  });

  it('repairs what was edited', async () => {
    await apply([reads]);
    client.put(resources.roles, {
      ...live().role!,
      rules: [{ apiGroups: ['*'], resources: ['*'], verbs: ['*'] }],
    });
    client.put(resources.serviceAccounts, {
      ...live().serviceAccount!,
      automountServiceAccountToken: true,
    });
    written();
    await apply([reads]);
    expect(written()).toEqual(['apply ServiceAccount', 'apply Role']);
    expect(live().role?.rules).toEqual([
      { apiGroups: [''], resources: ['configmaps'], verbs: ['get', 'list'] },
    ]);
  });

  it('replaces a RoleBinding that was pointed at another role', async () => {
    await apply([reads]);
    const { roleRef, ...rest } = live().roleBinding!;
    client.put(resources.roleBindings, {
      ...rest,
      roleRef: { ...roleRef, kind: 'ClusterRole', name: 'cluster-admin' },
    });
    await apply([reads]);
    expect(live().roleBinding?.roleRef).toEqual(roleRef);
  });

  it('never marks a ServiceAccount that is somebody else’s', async () => {
    client.put(resources.serviceAccounts, { metadata: { ...key, uid: 'a stranger' } });
    expect((await apply([reads], {}))[0]?.reason).toBe('ForeignObject');
    expect(written()).toEqual([]);
  });

  it('takes the mark from a ServiceAccount that turns out to be somebody else’s', async () => {
    client.beforeWrite = ({ kind, verb }) => {
      if (kind === 'ServiceAccount' && verb === 'create') {
        client.put(resources.serviceAccounts, { metadata: { ...key, uid: 'a stranger' } });
      }
    };
    expect((await apply([reads], {}))[0]?.reason).toBe('ForeignObject');
    expect((await apply([reads], { mark: live().mark }))[0]?.reason).toBe('ForeignObject');
    expect(live().mark).toBeUndefined();
  });

  it('grants nothing to a ServiceAccount that it can’t mark', async () => {
    const foreign = client.put(resources.roleBindings, {
      metadata: markKey,
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'other' },
    });
    const [problem] = await apply([reads], {});
    expect(problem?.reason).toBe('ForeignObject');
    expect(live()).toEqual({ mark: foreign });
  });

  it.each([
    ['ServiceAccount', resources.serviceAccounts],
    ['Role', resources.roles],
  ] as const)('grants nothing while the %s is somebody else’s', async (kind, resource) => {
    await apply([reads]);
    const foreign = { metadata: { ...key, uid: 'a stranger' } };
    client.remove(resource, key);
    client.put(resource, foreign);
    const children = { ...live(), [kind === 'Role' ? 'role' : 'serviceAccount']: undefined };
    const [problem] = await apply([reads], children);
    expect(problem?.reason).toBe('ForeignObject');
    expect(problem?.message).toContain(`${kind} poster`);
    expect(client.find(resource, key)?.metadata.uid).toBe('a stranger');
    expect(live().roleBinding).toBeUndefined();
  });

  it('leaves a RoleBinding that is somebody else’s alone', async () => {
    const foreign = client.put(resources.roleBindings, {
      metadata: key,
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'other' },
    });
    const [problem] = await apply([reads], {});
    expect(problem?.reason).toBe('ForeignObject');
    expect(live().roleBinding).toEqual(foreign);
  });

  describe('when the API server refuses to grant', () => {
    const deletes: Permission = {
      apiGroups: ['apps'],
      resources: ['deployments'],
      verbs: ['delete'],
      reason: 'cleans up',
    };

    it('names the rules that are missing, and binds nothing', async () => {
      refuseToGrant('delete');
      const [problem] = await apply([reads, deletes]);
      expect(problem?.reason).toBe('PermissionsNotGrantable');
      expect(problem?.message).toContain(
        '{APIGroups:["apps"], Resources:["deployments"], Verbs:["delete"]}',
      );
      expect(live()).toMatchObject({ role: undefined, roleBinding: undefined });
    });

    it('keeps what stands, cut down to what is still wanted', async () => {
      await apply([reads]);
      refuseToGrant('delete');
      const less = { ...reads, verbs: ['get'] };
      const [problem] = await apply([less, deletes]);
      expect(problem?.reason).toBe('PermissionsNotGrantable');
      expect(live().role?.rules).toEqual([
        { apiGroups: [''], resources: ['configmaps'], verbs: ['get'] },
      ]);
      expect(live().roleBinding).toBeDefined();
    });

    it('revokes everything where even that is refused', async () => {
      await apply([reads, deletes]);
      refuseToGrant('delete');
      const [problem] = await apply([deletes]);
      expect(problem?.reason).toBe('PermissionsNotGrantable');
      expect(live()).toMatchObject({ role: undefined, roleBinding: undefined });
    });
  });

  it('throws what a retry may cure', async () => {
    client.beforeWrite = () => {
      throw new ApiError('etcd is slow', { status: 500 });
    };
    await expect(apply([reads])).rejects.toThrow('etcd is slow');
  });
});
