import type { AutomationIdentity } from '../../api/automation-identity.ts';
import { label, MANAGED_BY } from '../../api/names.ts';
import { splitKey, type NetworkPolicy, type Pod } from '../../api/objects.ts';
import { resources, subjectOf } from '../../api/resources.ts';
import type { EventRecorder } from '../../observability/events.ts';
import { isLeftBehind, type Applier } from '../../runtime/applier.ts';
import type { KubeClient } from '../../runtime/client.ts';
import type { ReconcileContext, ReconcileResult } from '../../runtime/controller.ts';
import { assertAllDone, forEachBounded } from '../../runtime/parallel.ts';
import type { ReadStore } from '../../runtime/store.ts';
import { withoutEnded } from './expiries.ts';
import type { PlugInPolicy } from './plug-in.ts';
import type { PlugInPolicies } from './plug-in-policies.ts';

/** What keeps the policies of a Workflow that was deleted. */
export const keepers = ['Pods', 'Identity', 'ServiceAccount', 'KillSwitch'] as const;
export type Keeper = (typeof keepers)[number];

/** What is there yet of an automation whose Workflow is gone. */
export interface Remains {
  /** Pods that run as its ServiceAccount. */
  pods: number;
  /** Its AutomationIdentity or the ServiceAccount of that: more pods may start. */
  hasIdentity: boolean;
  /** A ServiceAccount of its name that somebody else made: more pods may start, too. */
  hasAccount: boolean;
  isKilled: boolean;
}

/** @returns `undefined` where the policies hold nothing back any more, and can go */
export function keeperOf({ pods, hasIdentity, hasAccount, isKilled }: Remains): Keeper | undefined {
  if (isKilled) return 'KillSwitch';
  if (pods > 0) return 'Pods';
  if (hasIdentity) return 'Identity';
  return hasAccount ? 'ServiceAccount' : undefined;
}

export interface TeardownOptions {
  /** Writes only while this process leads. */
  client: Pick<KubeClient, 'list' | 'get'>;
  /** Writes only while this process leads. */
  applier: Applier;
  events: Pick<EventRecorder, 'normal'>;
  metrics: {
    /** @param keeper `undefined` where no policies are left behind */
    setEgressLeft(key: string, keeper: Keeper | undefined): void;
  };
  identities: Pick<ReadStore<AutomationIdentity>, 'get'>;
  /** Indexed by `workflow`. */
  networkPolicies: Pick<ReadStore<NetworkPolicy>, 'byIndex'>;
  /** Indexed by `identity` (`namespace/serviceAccountName`). */
  pods: Pick<ReadStore<Pod>, 'byIndex'>;
  plugIn: Pick<PlugInPolicies, 'named' | 'remove'>;
  /** Whether a KillSwitch stands over it. */
  isKilled: (key: string) => boolean;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/** The API server may know more than the caches, which tell when that changes. */
const askAgainMs = 10_000;
/**
 * The end of a KillSwitch over a whole namespace tells only of Workflows, that of somebody else's
 * ServiceAccount of nothing.
 */
const untoldMs = 60_000;

/** Longer ones are begun anew: a clock may be set meanwhile. */
const longestWaitMs = 3_600_000;

const parallelism = 8;

/**
 * Takes away the policies that a Workflow left behind when it was deleted: when no pod runs as its
 * identity any more, and none can start. Until then they stay as they are, with or without an
 * operator, so that deleting a Workflow lets nothing out.
 */
export class EgressTeardown {
  readonly #options: TeardownOptions;
  /** What was told of each key. */
  readonly #told = new Map<string, Keeper>();

  constructor(options: TeardownOptions) {
    this.#options = options;
  }

  /** It has a Workflow again, or nothing is left. */
  forget(key: string): void {
    this.#told.delete(key);
    this.#options.metrics.setEgressLeft(key, undefined);
  }

  /**
   * @param key `namespace/name` of a Workflow that the caches don't know
   * @throws ApiError for what a retry may cure
   */
  async reconcile(key: string, context: ReconcileContext): Promise<ReconcileResult> {
    const { networkPolicies, plugIn, pods, identities, isKilled } = this.#options;
    const policies = networkPolicies.byIndex('workflow', key).filter(isLeftBehind);
    const beyond = plugIn.named(key).filter(isLeftBehind);
    if (policies.length + beyond.length === 0) {
      this.forget(key);
      return {};
    }
    const cached = {
      pods: pods.byIndex('identity', key).filter(isRunning).length,
      hasIdentity: identities.get(key) !== undefined,
      hasAccount: false,
      isKilled: isKilled(key),
    };
    const keeper = keeperOf(cached);
    if (keeper !== undefined) {
      this.#keep(key, keeper, { policies, beyond }, context);
      if (keeper === 'KillSwitch') return { requeueAfterMs: untoldMs };
      const nextMs = await this.#age(policies, context);
      return nextMs === undefined ? {} : { requeueAfterMs: Math.min(nextMs, longestWaitMs) };
    }
    const asked = await this.#ask(key, context.signal);
    if (asked === 'Workflow') return { requeueAfterMs: askAgainMs };
    const other = keeperOf({ ...asked, isKilled: false });
    if (other !== undefined) {
      this.#keep(key, other, { policies, beyond }, context);
      const nextMs = await this.#age(policies, context);
      const againMs = other === 'ServiceAccount' ? untoldMs : askAgainMs;
      return { requeueAfterMs: Math.min(nextMs ?? againMs, againMs) };
    }
    await this.#remove(policies, beyond, context);
    this.forget(key);
    return {};
  }

  /** @returns `Workflow` where there is one again: then it isn't for us to take anything away */
  async #ask(key: string, signal: AbortSignal): Promise<'Workflow' | Omit<Remains, 'isKilled'>> {
    const { client } = this.#options;
    const { namespace = '', name } = splitKey(key);
    const of = { namespace, name };
    const [workflow, identity, account] = await Promise.all([
      client.get(resources.workflows, of, { metadataOnly: true, signal }),
      client.get(resources.automationIdentities, of, { metadataOnly: true, signal }),
      client.get(resources.serviceAccounts, of, { metadataOnly: true, signal }),
    ]);
    if (workflow !== undefined) return 'Workflow';
    const isOurs = account?.metadata.labels?.[label.managedBy] === MANAGED_BY;
    const hasIdentity = identity !== undefined || isOurs;
    const hasAccount = account !== undefined;
    if (hasIdentity || hasAccount) return { pods: 0, hasIdentity, hasAccount };
    // Asked once none can start any more: of one that starts meanwhile, a list from before is silent.
    const pods = await client.list(resources.pods, {
      namespace,
      fieldSelector: `spec.serviceAccountName=${name},status.phase!=Succeeded,status.phase!=Failed`,
      signal,
    });
    return { pods: pods.length, hasIdentity, hasAccount };
  }

  /**
   * Withdraws what has ended.
   *
   * @returns milliseconds until something else ends
   */
  async #age(
    policies: readonly NetworkPolicy[],
    { signal, log }: ReconcileContext,
  ): Promise<number | undefined> {
    const { applier, clock } = this.#options;
    const aged = policies.map((live) => ({ live, ...withoutEnded(live, clock()) }));
    const due = aged.filter(({ isChanged }) => isChanged);
    const outcomes = await forEachBounded(due, parallelism, ({ live, policy }) => {
      const { name, namespace, labels, annotations } = policy.metadata;
      const metadata = {
        name,
        ...(namespace !== undefined && { namespace }),
        ...(labels !== undefined && { labels }),
        ...(annotations !== undefined && { annotations }),
      };
      const options = { signal, isChange: true };
      return applier.ensure(resources.networkPolicies, { ...policy, metadata }, live, options);
    });
    assertAllDone(outcomes, 'withdraw what has ended');
    if (due.length > 0) {
      log.info('Egress changed', { updated: due.map(({ live: { metadata } }) => metadata.name) });
    }
    const times = aged.flatMap(({ nextMs }) => nextMs ?? []);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  #keep(
    key: string,
    keeper: Keeper,
    { policies, beyond }: { policies: readonly NetworkPolicy[]; beyond: readonly PlugInPolicy[] },
    { log }: ReconcileContext,
  ): void {
    const { events, metrics } = this.#options;
    metrics.setEgressLeft(key, keeper);
    if (this.#told.get(key) === keeper) return;
    this.#told.set(key, keeper);
    const { name } = splitKey(key);
    log.info('Policies outlive their Workflow', {
      keeper,
      policies: policies.length + beyond.length,
    });
    for (const policy of policies) {
      const message = `The Workflow ${name} was deleted, and this policy stays: ${reasons[keeper]}.`;
      events.normal(subjectOf(resources.networkPolicies, policy), 'EgressKept', message);
    }
  }

  async #remove(
    policies: readonly NetworkPolicy[],
    beyond: readonly PlugInPolicy[],
    { signal, log }: ReconcileContext,
  ): Promise<void> {
    const { applier, plugIn } = this.#options;
    const { changed, errors } = await plugIn.remove(beyond, { applier, signal });
    if (errors.length > 0) throw errors[0];
    const outcomes = await forEachBounded(policies, parallelism, (policy) =>
      applier.remove(resources.networkPolicies, policy, { signal }),
    );
    assertAllDone(outcomes, 'remove policies that a Workflow left behind');
    const removed = [...changed, ...policies.map(({ metadata }) => metadata.name)];
    log.info('Egress changed', { removed });
  }
}

const reasons = {
  Pods: 'pods still run as its identity',
  Identity: 'its AutomationIdentity is there yet, so that pods may start as it',
  ServiceAccount:
    'there is a ServiceAccount of its name that the operator did not make, so that pods may start as it',
  KillSwitch: 'a KillSwitch stands over it',
} satisfies Record<Keeper, string>;

function isRunning({ status }: Pod): boolean {
  return status?.phase !== 'Succeeded' && status?.phase !== 'Failed';
}
