import type { AutomationIdentity } from '../../api/automation-identity.ts';
import { API_VERSION } from '../../api/names.ts';
import type { KubeObject, ServiceAccount } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import { controllerOf } from '../../runtime/applier.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { questionsOf, reviewAccess } from './access.ts';
import { readSpec } from './plan.ts';

/** Whose permissions and tokens a kill takes away: a ServiceAccount, and who made it. */
export interface Subject {
  namespace: string;
  /** Of the ServiceAccount. */
  name: string;
  /** `undefined` where there is none: then the ServiceAccount is somebody else's. */
  identity: AutomationIdentity | undefined;
}

/**
 * Whether something was made for the subject, by its controller reference. What belonged to an
 * identity that is gone counts too: the garbage collector is about to take it.
 */
export function isOf({ name, identity }: Subject, child: KubeObject | undefined): boolean {
  const owner = child && controllerOf(child);
  if (owner === undefined) return false;
  if (identity !== undefined) return owner.uid === identity.metadata.uid;
  return (
    owner.kind === 'AutomationIdentity' && owner.apiVersion === API_VERSION && owner.name === name
  );
}

export interface RevokeOptions {
  client: KubeClient;
  signal: AbortSignal;
}

/** What is left of the permissions of a subject. */
export interface Permissions {
  /** What it may still do, by what somebody else granted. */
  allowed: string[];
  /** Its binding stood until now: the API server may answer by it for a moment. */
  wasBound: boolean;
}

/**
 * Deletes the subject's RoleBinding, then asks the API server which of the declared permissions are
 * allowed all the same.
 *
 * @throws ApiError for what a retry may cure
 */
export async function revokePermissions(
  subject: Subject,
  { client, signal }: RevokeOptions,
): Promise<Permissions> {
  const { namespace, name, identity } = subject;
  const key = { namespace, name };
  const binding = await client.get(resources.roleBindings, key, { signal });
  const wasBound = binding !== undefined && isOf(subject, binding);
  if (wasBound) {
    const { uid = '' } = binding.metadata;
    await client.delete(resources.roleBindings, key, { uid, signal });
  }
  const read = identity && readSpec(identity);
  if (read === undefined || !('spec' in read)) return { allowed: [], wasBound };
  const questions = questionsOf(namespace, read.spec.permissions ?? []);
  const asked = { client, namespace, serviceAccountName: name, questions, signal };
  return { allowed: await reviewAccess(asked), wasBound };
}

/** What became of a ServiceAccount. */
export type AccountState =
  | 'Gone'
  /** It is somebody else's, and left alone. */
  | 'Foreign'
  /** A finalizer keeps it; the API server accepts its tokens for another minute. */
  | 'Deleting';

/**
 * Deletes the subject's ServiceAccount, which ends all its tokens, and looks whether it is gone.
 *
 * @param live as the API server has it now
 * @throws ApiError for what a retry may cure
 */
export async function revokeAccount(
  subject: Subject,
  live: ServiceAccount | undefined,
  { client, signal }: RevokeOptions,
): Promise<AccountState> {
  if (live === undefined) return 'Gone';
  if (!isOf(subject, live)) return 'Foreign';
  const { namespace, name } = subject;
  const { uid = '', deletionTimestamp } = live.metadata;
  if (deletionTimestamp === undefined) {
    await client.delete(resources.serviceAccounts, { namespace, name }, { uid, signal });
  }
  const after = await client.get(resources.serviceAccounts, { namespace, name }, { signal });
  if (after === undefined) return 'Gone';
  return isOf(subject, after) ? 'Deleting' : 'Foreign';
}
