import type { AutomationIdentity } from '../api/automation-identity.ts';
import { keyOf, type KubeObject } from '../api/objects.ts';
import { resources, subjectOf, type Resource } from '../api/resources.ts';
import type { Workload } from '../api/workload.ts';
import type { RevokedTokens } from '../guardrails/credentials/revoked-tokens.ts';
import { credentialSecretsOf, withdrawSecrets } from '../guardrails/credentials/withdraw.ts';
import { markNameOf, readSpec } from '../guardrails/identity/plan.ts';
import { some } from '../guardrails/wording.ts';
import type { EventRecorder } from '../observability/events.ts';
import { isControlledBy } from '../runtime/applier.ts';
import { dropOldest } from '../runtime/bounded-map.ts';
import type { KubeClient } from '../runtime/client.ts';
import type { IndexedStore } from '../runtime/merged-store.ts';
import { idOf } from './workflow-targets.ts';

/** Identities that are remembered at a time; of more, the oldest is left to the garbage collector. */
const maxRemembered = 1_000;

/**
 * The AutomationIdentities that were deleted, as they were last seen: what their Secrets are called
 * stands in them alone. In memory only: what a crash leaves, the garbage collector takes.
 */
export class Departures {
  readonly #gone = new Map<string, AutomationIdentity>();

  add(identity: AutomationIdentity): void {
    const key = keyOf(identity);
    this.#gone.delete(key);
    this.#gone.set(key, identity);
    dropOldest(this.#gone, maxRemembered);
  }

  /** @param key `namespace/name` */
  get(key: string): AutomationIdentity | undefined {
    return this.#gone.get(key);
  }

  /** It is done with. A later one of that name isn't. */
  delete(identity: AutomationIdentity): void {
    const key = keyOf(identity);
    if (this.#gone.get(key)?.metadata.uid === identity.metadata.uid) this.#gone.delete(key);
  }
}

export interface OffboardOptions {
  client: KubeClient;
  events: Pick<EventRecorder, 'normal' | 'warning'>;
  /** Indexed by `identity` (`namespace/serviceAccountName`) and `secret` (`namespace/secretName`). */
  workloads: IndexedStore<Workload>;
  /** Remembers the tokens that go with their Secrets. */
  revoked: RevokedTokens;
  signal: AbortSignal;
}

/**
 * Takes away what a deleted identity had: what it may do, then its tokens and credentials, then the
 * ServiceAccount, which ends every other token, and last the mark by which admission restricts it.
 * The garbage collector would take the same, in any order, and does where no operator runs. What
 * isn't the identity's by its UID stays. Done twice, it is as done once.
 *
 * @throws ApiError for what a retry may cure; its message never comes from a Secret
 */
export async function offboard(
  identity: AutomationIdentity,
  { client, events, workloads, revoked, signal }: OffboardOptions,
): Promise<void> {
  const { namespace = '', name } = identity.metadata;
  let removed = 0;
  const remove = async (resource: Resource, child: string): Promise<void> => {
    const key = { namespace, name: child };
    const live: KubeObject | undefined = await client.get(resource, key, {
      metadataOnly: true,
      signal,
    });
    if (live === undefined || !isControlledBy(live, identity)) return;
    const { uid = '' } = live.metadata;
    const options = { uid, propagationPolicy: 'Background', signal } as const;
    if (await client.delete(resource, key, options)) removed++;
  };
  const read = readSpec(identity);
  const secrets = credentialSecretsOf(identity, 'spec' in read ? read.spec : undefined);
  const tokens = new Set((identity.status?.tokens ?? []).map(({ secretName }) => secretName));
  const withdraw = async (names: string[]): Promise<void> => {
    const { withdrawn } = await withdrawSecrets(identity, names, { client, revoked, signal });
    removed += withdrawn.length;
  };

  await remove(resources.roleBindings, name);
  await withdraw(secrets.filter((secret) => tokens.has(secret)));
  await withdraw(secrets.filter((secret) => !tokens.has(secret)));
  await remove(resources.serviceAccounts, name);
  await remove(resources.roles, name);
  await remove(resources.roleBindings, markNameOf(name));

  // The garbage collector may have been as fast. What is still on its way is told when it is gone.
  if (removed === 0 && identity.metadata.deletionTimestamp !== undefined) return;
  const subject = subjectOf(resources.automationIdentities, identity);
  events.normal(
    subject,
    'Offboarded',
    'Its permissions, tokens, credentials and ServiceAccount are taken away.',
  );
  const left = new Set(
    [
      ...workloads.byIndex('identity', `${namespace}/${name}`),
      ...secrets.flatMap((secret) => workloads.byIndex('secret', `${namespace}/${secret}`)),
    ]
      .filter(({ isPaused, finished }) => !isPaused && !finished)
      .map(idOf),
  );
  if (left.size === 0) return;
  events.warning(
    subject,
    'ConsumersLeft',
    `${left.size} workloads still run as it or read its credentials: ${some([...left])}. Their pods go on with what they have read, and no new ones start: delete them.`,
  );
}
