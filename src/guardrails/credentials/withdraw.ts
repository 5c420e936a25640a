import {
  isGenerated,
  type AutomationIdentity,
  type AutomationIdentitySpec,
} from '../../api/automation-identity.ts';
import { secretNameOf, secretPrefix } from '../../api/names.ts';
import { keyOf } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { assertAllDone, forEachBounded } from '../../runtime/parallel.ts';
import { isControlledBy } from '../../runtime/applier.ts';
import type { RevokedTokens } from './revoked-tokens.ts';

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
  /** Remembers the tokens that went with their Secrets. */
  revoked: RevokedTokens;
  signal: AbortSignal;
}

/**
 * Names of the Secrets that hold an identity's credentials, its tokens among them: those in its
 * status, where each name stands before its Secret is created, and those that the spec asks for. What
 * it merely watches is none of them.
 *
 * @param spec `undefined` where it can't be read
 */
export function credentialSecretsOf(
  { metadata, status }: AutomationIdentity,
  spec: AutomationIdentitySpec | undefined,
): string[] {
  const recorded = [...(status?.secrets ?? []), ...(status?.tokens ?? [])];
  const asked = [...(spec?.secrets ?? []).filter(isGenerated), ...(spec?.tokens ?? [])];
  return [
    ...new Set([
      ...recorded
        .map(({ secretName }) => secretName)
        .filter((secretName) => secretName.startsWith(secretPrefix)),
      ...asked.map(({ name }) => secretNameOf(metadata.name, name)),
    ]),
  ];
}

/**
 * Deletes the Secrets with an identity's credentials, by name and by UID, as far as they are its.
 *
 * @throws ApiError for what a retry may cure; its message never comes from a Secret
 */
export async function withdrawSecrets(
  identity: AutomationIdentity,
  secretNames: readonly string[],
  { client, revoked, signal }: WithdrawOptions,
): Promise<Withdrawal> {
  const { namespace = '' } = identity.metadata;
  const outcomes = await forEachBounded(secretNames, parallelism, async (name) => {
    const key = { namespace, name };
    const seen = await client.get(resources.secrets, key, { metadataOnly: true, signal });
    if (seen === undefined) return 'absent';
    // The value of somebody else's is never read.
    if (!isControlledBy(seen, identity)) return 'foreign';
    const live = await client.get(resources.secrets, key, { signal });
    if (live === undefined) return 'absent';
    if (!isControlledBy(live, identity)) return 'foreign';
    const { uid = '' } = live.metadata;
    const isDeleted = await client.delete(resources.secrets, key, { uid, signal });
    // Whoever deletes it remembers it; asked for twice, it is found dead twice.
    revoked.add(keyOf(identity), live);
    return isDeleted ? 'withdrawn' : 'absent';
  });
  assertAllDone(outcomes, 'withdraw credentials');
  const named = (state: string): string[] =>
    outcomes.flatMap((outcome) =>
      'result' in outcome && outcome.result === state ? [outcome.item] : [],
    );
  return { withdrawn: named('withdrawn'), foreign: named('foreign') };
}
