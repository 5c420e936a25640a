import type { AutomationIdentity } from '../../api/automation-identity.ts';
import { secretNameOf, secretPrefix } from '../../api/names.ts';
import { resources } from '../../api/resources.ts';
import { controllerOf } from '../../runtime/applier.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { assertAllDone, forEachBounded } from '../../runtime/parallel.ts';

/** Requests in flight at a time, for one identity. */
const parallelism = 8;

export interface Withdrawal {
  /** Names of Secrets that were deleted just now. */
  withdrawn: string[];
  /** Names of Secrets that aren't the operator's, and were left alone. */
  foreign: string[];
}

export interface WithdrawOptions {
  client: Pick<KubeClient, 'get' | 'delete'>;
  signal: AbortSignal;
}

/**
 * Names of the Secrets that hold an identity's credentials: those in its status, where each name
 * stands before its Secret is created, and those that the spec asks for. What it merely watches is
 * none of them.
 *
 * @param declared names of the credentials within the identity
 */
export function credentialSecretsOf(
  { metadata, status }: AutomationIdentity,
  declared: readonly string[],
): string[] {
  const recorded = (status?.secrets ?? [])
    .map(({ secretName }) => secretName)
    .filter((secretName) => secretName.startsWith(secretPrefix));
  const asked = declared.map((credential) => secretNameOf(metadata.name, credential));
  return [...new Set([...recorded, ...asked])];
}

/**
 * Deletes the Secrets with an identity's credentials, by name and by UID, as far as they are its.
 *
 * @throws ApiError for what a retry may cure; its message never comes from a Secret
 */
export async function withdrawSecrets(
  identity: AutomationIdentity,
  secretNames: readonly string[],
  { client, signal }: WithdrawOptions,
): Promise<Withdrawal> {
  const { namespace = '', uid: owner } = identity.metadata;
  const outcomes = await forEachBounded(secretNames, parallelism, async (name) => {
    const key = { namespace, name };
    const live = await client.get(resources.secrets, key, { metadataOnly: true, signal });
    if (live === undefined) return 'absent';
    if (owner === undefined || controllerOf(live)?.uid !== owner) return 'foreign';
    const { uid = '' } = live.metadata;
    return (await client.delete(resources.secrets, key, { uid, signal })) ? 'withdrawn' : 'absent';
  });
  assertAllDone(outcomes, 'withdraw credentials');
  const named = (state: string): string[] =>
    outcomes.flatMap((outcome) =>
      'result' in outcome && outcome.result === state ? [outcome.item] : [],
    );
  return { withdrawn: named('withdrawn'), foreign: named('foreign') };
}
