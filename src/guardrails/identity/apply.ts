import { resources } from '../../api/resources.ts';
import { apiVersionOf, type Resource } from '../../api/resources.ts';
import type { KubeObject, Role, ServiceAccount } from '../../api/objects.ts';
import type { AutomationIdentity } from '../../api/automation-identity.ts';
import { annotation, FIELD_MANAGER, grantableRole } from '../../api/names.ts';
import { ForeignObjectError, type Applier } from '../../runtime/applier.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { ApiError } from '../../runtime/errors.ts';
import type { Problem } from '../requirements.ts';
import { keptOf, writeKept, type KeptServiceAccount } from './kept.ts';
import { keptTextOn, planRevoked, type IdentityChildren, type IdentityPlan } from './plan.ts';
import { areCovered, intersectRules } from './rules.ts';

export interface ApplyIdentityOptions {
  applier: Applier;
  signal: AbortSignal;
}

/**
 * Makes the plan true, in an order in which no moment grants more than the plan: what is granted
 * is written before the binding that grants it, and taken away after it. A binding stands only
 * while ServiceAccount and Role are ours: by name it would serve a stranger's as well. The mark is
 * there before the ServiceAccount, so that at no moment a token of it could escape admission.
 *
 * @param live what a cache knows of them, as far as it is ours
 * @returns what keeps the identity from being ready and no retry would cure
 * @throws ApiError for what a retry may cure
 */
export async function applyIdentity(
  plan: IdentityPlan,
  live: IdentityChildren,
  { applier, signal }: ApplyIdentityOptions,
): Promise<Problem[]> {
  const ensure = <T extends KubeObject>(
    resource: Resource<T>,
    desired: T | undefined,
    standing: T | undefined,
  ): Promise<Problem | undefined> =>
    desired === undefined
      ? Promise.resolve(undefined)
      : problemOf(applier.ensure(resource, desired, standing, { signal }));
  const remove = async (resource: Resource, standing: KubeObject | undefined): Promise<void> => {
    if (standing !== undefined) await applier.remove(resource, standing, { signal });
  };
  const revoke = (): Promise<void> => remove(resources.roleBindings, live.roleBinding);
  const leaveForeignAccount = async (problem: Problem): Promise<Problem[]> => {
    await revoke();
    await remove(resources.roleBindings, live.mark);
    return [problem];
  };

  if (plan.remove.roleBinding) await revoke();
  if (plan.remove.role) await remove(resources.roles, live.role);

  if (plan.serviceAccount !== undefined && live.serviceAccount === undefined) {
    const { serviceAccount } = plan;
    // Somebody else's must not be marked, not even for a moment.
    const foreign = await problemOf(
      applier.assertNotForeign(resources.serviceAccounts, serviceAccount, { signal }),
    );
    if (foreign !== undefined) return await leaveForeignAccount(foreign);
  }
  const markProblem = await ensure(resources.roleBindings, plan.mark, live.mark);
  if (markProblem !== undefined) {
    await revoke();
    return [markProblem];
  }
  const foreignAccount = await ensure(
    resources.serviceAccounts,
    plan.serviceAccount,
    live.serviceAccount,
  );
  if (foreignAccount !== undefined) return await leaveForeignAccount(foreignAccount);

  const roleProblem = await ensure(resources.roles, plan.role, live.role);
  if (roleProblem?.reason === 'ForeignObject') {
    await revoke();
    return [roleProblem];
  }
  if (roleProblem !== undefined && !(await shrink(plan.role, live.role, ensure))) {
    await revoke();
    await remove(resources.roles, live.role);
    return [roleProblem];
  }

  const bindingProblem = await ensure(resources.roleBindings, plan.roleBinding, live.roleBinding);
  return [roleProblem, bindingProblem].flatMap((problem) => problem ?? []);
}

/**
 * Takes away what an identity has, since a review said so: permissions first, then the ServiceAccount,
 * which ends its tokens. What others had on that is written down before, on the mark, which stays.
 *
 * @param keptByKill what a KillSwitch keeps of the ServiceAccount that it took away
 * @returns what no retry would cure, and whether more was on the ServiceAccount than can be kept
 * @throws ApiError for what a retry may cure
 */
export async function takeAway(
  identity: AutomationIdentity,
  live: IdentityChildren,
  keptByKill: KeptServiceAccount | undefined,
  { applier, signal }: ApplyIdentityOptions,
): Promise<{ problems: Problem[]; isCut: boolean }> {
  const { serviceAccount, mark } = live;
  const kept = serviceAccount === undefined ? keptByKill : keptOf(serviceAccount);
  const { text, cut } =
    kept === undefined
      ? { text: keptTextOn(mark), cut: [] }
      : writeKept({ [identity.metadata.name]: kept });
  const plan = planRevoked(identity, live, text);
  const problems = await applyIdentity(plan, live, { applier, signal });
  if (problems.length === 0 && serviceAccount !== undefined) {
    await applier.remove(resources.serviceAccounts, serviceAccount, { signal });
  }
  return { problems, isCut: cut.length > 0 };
}

/** Once the ServiceAccount is back, its mark bears nothing for it any more. */
export async function forgetKept(
  client: Pick<KubeClient, 'mergePatch'>,
  { mark, serviceAccount }: IdentityChildren,
  signal: AbortSignal,
): Promise<void> {
  if (mark === undefined || keptTextOn(mark) === undefined) return;
  if (serviceAccount === undefined || serviceAccount.metadata.deletionTimestamp !== undefined) {
    return;
  }
  const { namespace = '', name, uid } = mark.metadata;
  await client.mergePatch(
    resources.roleBindings,
    { namespace, name },
    { metadata: { uid, annotations: { [annotation.restoreServiceAccount]: null } } },
    { signal },
  );
}

/**
 * Gives up the fields that a release put back for others: they are owned by whoever writes them
 * next, without a conflict. Until then the operator keeps what it sets itself.
 */
export async function disownKept(
  client: Pick<KubeClient, 'get' | 'mergePatch'>,
  planned: ServiceAccount | undefined,
  kept: KeptServiceAccount,
  signal: AbortSignal,
): Promise<void> {
  if (planned === undefined || Object.keys(kept).length === 0) return;
  const { namespace = '', name, labels = {}, ownerReferences = [] } = planned.metadata;
  const key = { namespace, name };
  const live = await client.get(resources.serviceAccounts, key, { signal });
  const { uid, resourceVersion, ownerReferences: owners = [] } = live?.metadata ?? {};
  if (!owners.some((owner) => ownerReferences.some((ours) => ours.uid === owner.uid))) return;
  const own = Object.keys(labels).filter((label) => kept.labels?.[label] === undefined);
  const owned = {
    'f:automountServiceAccountToken': {},
    'f:metadata': {
      'f:labels': Object.fromEntries(own.map((label) => [`f:${label}`, {}])),
      'f:ownerReferences': Object.fromEntries(
        ownerReferences.map((owner) => [`k:${JSON.stringify({ uid: owner.uid })}`, {}]),
      ),
    },
  };
  const entry = {
    manager: FIELD_MANAGER,
    operation: 'Update',
    apiVersion: apiVersionOf(resources.serviceAccounts),
    fieldsType: 'FieldsV1',
    fieldsV1: owned,
  };
  await client.mergePatch(
    resources.serviceAccounts,
    key,
    { metadata: { uid, resourceVersion, managedFields: [entry] } },
    { signal },
  );
}

/**
 * The API server refused to grant the new rules. What stands may allow more than they do: it is
 * cut down to what both allow.
 *
 * @returns whether a Role stands now that grants no more than it should
 */
async function shrink(
  wanted: Role | undefined,
  standing: Role | undefined,
  ensure: (
    resource: Resource<Role>,
    desired: Role | undefined,
    standing: Role | undefined,
  ) => Promise<Problem | undefined>,
): Promise<boolean> {
  if (wanted === undefined || standing === undefined) return false;
  const granted = standing.rules ?? [];
  if (areCovered(granted, wanted.rules ?? [])) return true;
  const rules = intersectRules(wanted.rules ?? [], granted);
  if (rules.length === 0) return false;
  return (await ensure(resources.roles, { ...wanted, rules }, standing)) === undefined;
}

async function problemOf(applied: Promise<unknown>): Promise<Problem | undefined> {
  try {
    await applied;
    return undefined;
  } catch (error) {
    if (error instanceof ForeignObjectError) {
      return { reason: 'ForeignObject', message: error.message };
    }
    const rules = rulesNotHeld(error);
    if (rules === undefined) throw error;
    return {
      reason: 'PermissionsNotGrantable',
      message: `The operator doesn't hold these permissions, so it can't grant them: ${rules}. Take them out of spec.permissions, or let an administrator add them to the chart's value grantable (the ClusterRole ${grantableRole}).`,
    };
  }
}

/** The rules that the API server's escalation check names, as its message has them. */
function rulesNotHeld(error: unknown): string | undefined {
  if (!(error instanceof ApiError) || error.status !== 403) return undefined;
  const [, rules] = error.message.split('not currently held:');
  return rules?.replaceAll(/\s+/g, ' ').trim().slice(0, 700);
}
