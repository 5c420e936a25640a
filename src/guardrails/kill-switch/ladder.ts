import { isDeepStrictEqual } from 'node:util';
import type { AutomationIdentity } from '../../api/automation-identity.ts';
import { conditionOf, isTrue, type Finding } from '../../api/conditions.ts';
import { maxRemaining, type KillSwitch, type Remaining } from '../../api/kill-switch.ts';
import { annotation } from '../../api/names.ts';
import {
  keyOf,
  type Condition,
  type NetworkPolicy,
  type Pod,
  type RoleBinding,
  type ServiceAccount,
} from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { Workflow } from '../../api/workflow.ts';
import type { Workload } from '../../api/workload.ts';
import { Applier, isLeftBehind, isMadeFor } from '../../runtime/applier.ts';
import type { KubeClient } from '../../runtime/client.ts';
import type { ReconcileContext } from '../../runtime/controller.ts';
import { ApiError } from '../../runtime/errors.ts';
import { assertAllDone, forEachBounded } from '../../runtime/parallel.ts';
import type { IndexedStore } from '../../runtime/merged-store.ts';
import type { ReadStore } from '../../runtime/store.ts';
import type { RevokedTokens } from '../credentials/revoked-tokens.ts';
import { credentialSecretsOf, withdrawSecrets } from '../credentials/withdraw.ts';
import { closeEgress, isClosed } from '../egress/close.ts';
import type { PlugInPolicies } from '../egress/plug-in-policies.ts';
import { podLabelsOf, widenedBy, wordsOf } from '../egress/widened.ts';
import { keptOf, readKept, writeKept, type KeptServiceAccounts } from '../identity/kept.ts';
import { readSpec } from '../identity/plan.ts';
import { isOf, revokeAccount, revokePermissions, type Subject } from '../identity/revoke.ts';
import { readLedger } from '../secret-store/ledger.ts';
import type { SecretStore } from '../secret-store/store.ts';
import { clip, some } from '../wording.ts';
import { isCopy, withdrawCopies, type CopySources } from './copies.ts';
import type { FenceAnswer } from './fence.ts';
import { coveredIn } from './plan.ts';
import {
  egressRung,
  identityRung,
  isOfEgress,
  notVerified,
  permissionsRung,
  remainingPolicies,
  secretsRung,
  tokensRung,
  type Rung,
} from './rungs.ts';

/** What the API server knows of automations, as caches hold it. */
export interface LadderStores {
  /** Indexed by `namespace`. */
  workflows: ReadStore<Workflow>;
  /** Indexed by `namespace`. */
  identities: ReadStore<AutomationIdentity>;
  /** Managed ones. */
  serviceAccounts: Pick<ReadStore<ServiceAccount>, 'get'>;
  /** Managed ones. */
  roleBindings: Pick<ReadStore<RoleBinding>, 'get'>;
  /** Indexed by `workflow`, and by the namespace as `others` where they may be somebody else's. */
  networkPolicies: Pick<ReadStore<NetworkPolicy>, 'byIndex'>;
  /** Indexed by `identity` (`namespace/serviceAccountName`). */
  pods: Pick<ReadStore<Pod>, 'byIndex'>;
  /** Indexed by `identity`. */
  workloads: IndexedStore<Workload>;
}

export interface LadderOptions {
  client: KubeClient;
  stores: LadderStores;
  /** Tokens that were withdrawn, of which it has to be proven that they are dead. */
  revoked: RevokedTokens;
  /** Where copies of credentials are. */
  secretStore: Pick<SecretStore, 'withdraw' | 'placeOf'>;
  /** Where it is written down what copies there are. */
  operatorNamespace: string;
  /** Policies that deny what others allow. */
  plugIn: Pick<PlugInPolicies, 'isDenied' | 'deny' | 'kind' | 'named'>;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/** How far one look has brought the rungs after Fenced, Paused and PodsGone. */
export interface Climb {
  /** PermissionsRevoked, SecretsWithdrawn, IdentityRevoked, TokensRevoked, EgressClosed. */
  findings: readonly Finding[];
  remaining: readonly Remaining[];
  /** As the API server has it after the look: what undo needs may have been written to it. */
  killSwitch: KillSwitch;
  /** Milliseconds from now at which to look again, though nothing happens. */
  dueMs: number | undefined;
  /** An answer of the API server lags behind what was done. */
  isLagging: boolean;
  /** What a retry may cure. */
  errors: readonly unknown[];
  /** Names of ServiceAccounts of which not everything that others had on them could be kept. */
  cut: readonly string[];
}

/** Whose policies are closed. */
type PolicyOwner = Pick<Workflow, 'metadata'>;

/** Identities and policies worked on at a time. */
const parallelism = 8;
/** What others grant is asked for again after this time at the earliest. */
const reviewAgainMs = 10_000;
/** Kills whose last review is remembered. */
const maxReviewed = 1_000;

/**
 * Takes from a killed automation what it could still be used with: its permissions, its Secrets,
 * its ServiceAccount with all tokens, its egress. Each rung goes by itself, at the same time as the
 * others; only the ServiceAccount waits until the fence is proven, since nobody may make another of
 * its name. What has been verified and shows no change in the caches isn't asked for again.
 */
export class Ladder {
  readonly #options: LadderOptions;
  readonly #applier: Applier;
  /** By UID of the KillSwitch; milliseconds since the epoch. */
  readonly #reviewedAt = new Map<string, number>();

  constructor(options: LadderOptions) {
    this.#options = options;
    this.#applier = new Applier({ client: options.client });
  }

  /** Whether the caches show nothing that a rung would have to take away. */
  isQuiet(killSwitch: KillSwitch): boolean {
    return (
      !this.#subjectsOf(killSwitch).some(
        (subject) => this.#hasAccount(subject) || this.#isBound(subject),
      ) &&
      !this.#ownersOf(killSwitch).some((workflow) => this.#isOpen(workflow)) &&
      this.#isToldOfOthers(killSwitch) &&
      // What has ended by itself is no longer told of.
      !(killSwitch.status?.remaining ?? []).some(
        ({ until }) => until !== undefined && Date.parse(until) <= this.#options.clock(),
      )
    );
  }

  /**
   * One look at all rungs. Never throws.
   *
   * @param killSwitch as the API server has it
   * @param fence answer of the fence, when it comes
   */
  async climb(
    killSwitch: KillSwitch,
    fence: Promise<FenceAnswer>,
    { signal, log }: Pick<ReconcileContext, 'signal' | 'log'>,
  ): Promise<Climb> {
    const look = new Look(killSwitch, signal);
    const subjects = this.#subjectsOf(killSwitch);
    const [permissions, secrets, identity, egress] = await Promise.all([
      look.rung('PermissionsRevoked', !subjects.some((subject) => this.#isBound(subject)), () =>
        this.#revokePermissions(look, subjects),
      ),
      look.rung(
        'SecretsWithdrawn',
        true,
        () => this.#withdrawSecrets(look, subjects),
        look.toldOfCopies,
      ),
      look.rung('IdentityRevoked', !subjects.some((subject) => this.#hasAccount(subject)), () =>
        this.#revokeAccounts(look, subjects, fence),
      ),
      look.rung(
        'EgressClosed',
        !this.#ownersOf(killSwitch).some((workflow) => this.#isOpen(workflow)) &&
          this.#allowedByOthers(killSwitch).length === 0 &&
          !(killSwitch.status?.remaining ?? []).some(isOfEgress),
        () => this.#closeEgress(look),
      ),
    ]);
    const tokens = await look.rung('TokensRevoked', false, () =>
      this.#reviewTokens(look, subjects, identity),
    );
    if (look.done.length > 0) log.info('Kill switch took away', { taken: look.done });
    const rungs = [permissions, secrets, identity, tokens, egress];
    return {
      findings: rungs.map(({ finding }) => finding),
      remaining: rungs.flatMap(({ remaining }) => remaining).slice(0, maxRemaining),
      killSwitch: look.killSwitch,
      dueMs: look.dueMs,
      isLagging: rungs.some(({ finding }) => lagging.has(finding.reason)),
      errors: look.errors,
      cut: look.cut,
    };
  }

  async #revokePermissions(look: Look, subjects: readonly Subject[]): Promise<Rung> {
    const { client, clock } = this.#options;
    const { signal, killSwitch } = look;
    const { uid = '' } = killSwitch.metadata;
    const standing = look.conditionOf('PermissionsRevoked');
    const isKnown = standing?.reason === 'GrantedElsewhere';
    const waitMs = (this.#reviewedAt.get(uid) ?? -Infinity) + reviewAgainMs - clock();
    if (isKnown && waitMs > 0) {
      look.dueAfter(Math.min(waitMs, reviewAgainMs));
      return { finding: findingOf(standing), remaining: look.remainingOf('Permissions of ') };
    }
    const outcomes = await forEachBounded(subjects, parallelism, (subject) =>
      revokePermissions(subject, { client, signal }),
    );
    assertAllDone(outcomes, 'revoke permissions');
    if (this.#reviewedAt.size >= maxReviewed) this.#reviewedAt.clear();
    this.#reviewedAt.set(uid, clock());
    const views = outcomes.flatMap((outcome) =>
      'result' in outcome ? [{ subject: outcome.item.name, allowed: outcome.result.allowed }] : [],
    );
    for (const outcome of outcomes) {
      if ('result' in outcome && outcome.result.wasBound) {
        look.done.push(`RoleBinding ${outcome.item.name}`);
      }
    }
    return permissionsRung(views, standing, clock());
  }

  async #withdrawSecrets(look: Look, subjects: readonly Subject[]): Promise<Rung> {
    const { client, revoked, secretStore: store, operatorNamespace } = this.#options;
    const { signal } = look;
    const identities = subjects.flatMap(({ identity }) => identity ?? []);
    const outcomes = await forEachBounded(identities, parallelism, (identity) =>
      withdrawSecrets(identity, secretsOf(identity), { client, revoked, signal }),
    );
    assertAllDone(outcomes, 'withdraw credentials');
    const results = outcomes.flatMap((outcome) => ('result' in outcome ? [outcome.result] : []));
    look.done.push(
      ...results.flatMap(({ withdrawn }) => withdrawn.map((name) => `Secret ${name}`)),
    );
    const { namespace = '' } = look.killSwitch.metadata;
    const view = { namespace, identities, told: look.toldOfCopies };
    const readOf: CopySources['readLedger'] = (of) =>
      readLedger(of, { client, namespace: operatorNamespace }, signal);
    const copies = await withdrawCopies(view, { store, readLedger: readOf }, signal);
    look.done.push(...copies.done);
    look.dueAfter(copies.dueMs);
    const rung = secretsRung(
      results.flatMap(({ foreign }) => foreign),
      copies.left,
    );
    const standing = look.conditionOf('SecretsWithdrawn');
    // Only who was answered has something new to say, or replicas would contradict each other.
    const isAsBefore =
      standing?.reason === 'CopiesRemain' &&
      !copies.wasAsked &&
      isDeepStrictEqual(rung.remaining.filter(isCopy), view.told);
    return isAsBefore ? { ...rung, finding: findingOf(standing) } : rung;
  }

  async #revokeAccounts(
    look: Look,
    subjects: readonly Subject[],
    fence: Promise<FenceAnswer>,
  ): Promise<Rung> {
    const { client } = this.#options;
    const { signal } = look;
    const found = await forEachBounded(subjects, parallelism, ({ namespace, name }) =>
      client.get(resources.serviceAccounts, { namespace, name }, { signal }),
    );
    assertAllDone(found, 'look for ServiceAccounts');
    const standing = found.flatMap((outcome) =>
      'result' in outcome && outcome.result !== undefined
        ? [{ subject: outcome.item, live: outcome.result }]
        : [],
    );
    const ours = standing.filter(({ subject, live }) => isOf(subject, live));
    const isFenced = ours.length === 0 || (await fence) === 'Denied';
    if (isFenced) await this.#keep(look, ours);
    const outcomes = await forEachBounded(isFenced ? standing : [], parallelism, (one) =>
      revokeAccount(one.subject, one.live, { client, signal }),
    );
    assertAllDone(outcomes, 'delete ServiceAccounts');
    const named = (state: string): string[] =>
      outcomes.flatMap((outcome) =>
        'result' in outcome && outcome.result === state ? [outcome.item.subject.name] : [],
      );
    look.done.push(...named('Gone').map((name) => `ServiceAccount ${name}`));
    look.foreignAccounts = named('Foreign');
    return identityRung({
      foreign: look.foreignAccounts,
      deleting: named('Deleting'),
      waiting: isFenced ? [] : ours.map(({ subject }) => subject.name),
    });
  }

  /** Tokens die with their ServiceAccount; of those that were published, the API server is asked. */
  async #reviewTokens(look: Look, subjects: readonly Subject[], identity: Rung): Promise<Rung> {
    const { client, clock, revoked } = this.#options;
    const now = clock();
    const view = {
      identity,
      previous: look.conditionOf('IdentityRevoked'),
      foreign: look.foreignAccounts,
      published: subjects.flatMap((subject) => subject.identity?.status?.tokens ?? []),
    };
    const rung = tokensRung({ ...view, accepted: [] }, now);
    look.dueAfter(rung.dueMs);
    if (rung.finding.status !== 'True') return rung;
    const reviews = await forEachBounded(subjects, parallelism, ({ namespace, name }) =>
      revoked.review(`${namespace}/${name}`, client, look.signal),
    );
    assertAllDone(reviews, 'review revoked tokens');
    const accepted = reviews.flatMap((outcome) =>
      'result' in outcome ? outcome.result.accepted : [],
    );
    return tokensRung({ ...view, accepted }, now);
  }

  /** Writes down what others have on the ServiceAccounts, before they go. */
  async #keep(
    look: Look,
    accounts: readonly { subject: Subject; live: ServiceAccount }[],
  ): Promise<void> {
    const { killSwitch, signal } = look;
    const before = killSwitch.metadata.annotations?.[annotation.restoreServiceAccount];
    const kept: KeptServiceAccounts = {
      ...readKept(killSwitch),
      ...Object.fromEntries(accounts.map(({ subject, live }) => [subject.name, keptOf(live)])),
    };
    const { text, cut } = writeKept(kept);
    look.cut = cut;
    if (accounts.length === 0 || text === before) return;
    try {
      look.killSwitch = await writeAnnotation(this.#options.client, killSwitch, text, signal);
    } catch (error) {
      // Somebody else's annotations leave no room: that mustn't keep a ServiceAccount alive.
      if (!(error instanceof ApiError && error.status === 422)) throw error;
      look.cut = accounts.map(({ subject }) => subject.name);
    }
  }

  async #closeEgress(look: Look): Promise<Rung> {
    const { client, plugIn } = this.#options;
    const { signal, killSwitch } = look;
    const { namespace = '' } = killSwitch.metadata;
    const workflows = this.#ownersOf(killSwitch);
    if (workflows.length === 0) {
      return egressRung({ policies: 0, deniedBy: undefined, refused: [], allowing: [] });
    }
    const policies = await client.list(resources.networkPolicies, { namespace, signal });
    const applier = this.#applier;
    const closed = await forEachBounded(workflows, parallelism, async (workflow) => {
      const ours = policies.filter((policy) => isMadeFor(policy, workflow));
      const changed = await closeEgress(workflow, ours, { applier, signal });
      return { count: ours.length, changed };
    });
    // Whatever came of closing them: a deny counts more than what is still allowed.
    const denied = await forEachBounded(workflows, parallelism, (workflow) =>
      plugIn.deny(workflow, { applier, signal }),
    );
    assertAllDone(closed, 'close egress');
    assertAllDone(denied, 'deny egress');
    const results = closed.flatMap((outcome) => ('result' in outcome ? [outcome.result] : []));
    const denials = denied.flatMap((outcome) =>
      'result' in outcome ? [{ workflow: outcome.item, ...outcome.result }] : [],
    );
    const open = denials.filter((one) => !('deniedBy' in one)).map(({ workflow }) => workflow);
    look.done.push(...results.flatMap(({ changed }) => changed.map((name) => `egress of ${name}`)));
    return egressRung({
      policies: results.reduce((sum, { count }) => sum + count, 0),
      deniedBy: denials.flatMap((one) => ('deniedBy' in one ? [one.deniedBy] : []))[0],
      refused: denials.flatMap((one) => ('refused' in one ? [one.refused] : [])),
      allowing: this.#policiesOfOthers(open),
    });
  }

  /** Whether `status.remaining` has the policies of others, as far as it has room. */
  #isToldOfOthers(killSwitch: KillSwitch): boolean {
    const { remaining = [] } = killSwitch.status ?? {};
    return (
      remaining.length >= maxRemaining ||
      isDeepStrictEqual(this.#allowedByOthers(killSwitch), remaining.filter(isOfEgress))
    );
  }

  /** Where nothing denies what they allow, as `status.remaining` has them. */
  #allowedByOthers(killSwitch: KillSwitch): Remaining[] {
    const { kind } = this.#options.plugIn;
    if (kind !== undefined && kind !== 'None') return [];
    return remainingPolicies(this.#policiesOfOthers(this.#ownersOf(killSwitch)));
  }

  /** Policies of others that let pods of these Workflows out, as the caches have them. */
  #policiesOfOthers(workflows: readonly PolicyOwner[]): string[] {
    const { networkPolicies, pods, workloads } = this.#options.stores;
    const found = new Map<string, string>();
    for (const workflow of workflows) {
      const { name, namespace = '' } = workflow.metadata;
      const others = networkPolicies
        .byIndex('others', namespace)
        .filter((policy) => !workflows.some((one) => isMadeFor(policy, one)));
      if (others.length === 0) continue;
      const key = keyOf(workflow);
      const labels = podLabelsOf(
        name,
        workloads.byIndex('identity', key),
        pods.byIndex('identity', key),
      );
      for (const { policy, rules } of widenedBy({ namespace, pods: labels, own: [], others })) {
        const words = clip(some(rules.map(wordsOf), 3), 256);
        found.set(policy.metadata.name, `${policy.metadata.name} of somebody else (${words})`);
      }
    }
    return [...found.values()].toSorted().slice(0, maxRemaining);
  }

  #workflowsOf(killSwitch: KillSwitch): readonly Workflow[] {
    return coveredIn(this.#options.stores.workflows, killSwitch);
  }

  /** Workflows, and those that were deleted and left policies behind. */
  #ownersOf(killSwitch: KillSwitch): readonly PolicyOwner[] {
    const { plugIn, stores } = this.#options;
    const workflows = this.#workflowsOf(killSwitch);
    const left = this.#subjectsOf(killSwitch).flatMap(({ namespace, name }): PolicyOwner[] => {
      if (workflows.some(({ metadata }) => metadata.name === name)) return [];
      const key = `${namespace}/${name}`;
      // One in the cluster's scope may outlive those of its namespace.
      const policies = [...stores.networkPolicies.byIndex('workflow', key), ...plugIn.named(key)];
      const uid = policies.find(isLeftBehind)?.metadata.annotations?.[annotation.ownerUid];
      return uid === undefined ? [] : [{ metadata: { namespace, name, uid } }];
    });
    return [...workflows, ...left];
  }

  /**
   * Of a whole namespace, all that an AutomationIdentity or a Workflow speaks of; other
   * ServiceAccounts are no automation's.
   */
  #subjectsOf(killSwitch: KillSwitch): readonly Subject[] {
    const { identities } = this.#options.stores;
    const { namespace = '' } = killSwitch.metadata;
    const { workflow } = killSwitch.spec;
    const names =
      workflow === undefined
        ? [...coveredIn(identities, killSwitch), ...this.#workflowsOf(killSwitch)].map(
            ({ metadata }) => metadata.name,
          )
        : [workflow];
    return [...new Set(names)].map((name) => ({
      namespace,
      name,
      identity: identities.get(`${namespace}/${name}`),
    }));
  }

  #hasAccount(subject: Subject): boolean {
    const { serviceAccounts } = this.#options.stores;
    return isOf(subject, serviceAccounts.get(`${subject.namespace}/${subject.name}`));
  }

  #isBound(subject: Subject): boolean {
    const { roleBindings } = this.#options.stores;
    return isOf(subject, roleBindings.get(`${subject.namespace}/${subject.name}`));
  }

  #isOpen(workflow: PolicyOwner): boolean {
    const { plugIn, stores } = this.#options;
    return (
      !plugIn.isDenied(workflow) ||
      stores.networkPolicies
        .byIndex('workflow', keyOf(workflow))
        .some((policy) => isMadeFor(policy, workflow) && !isClosed(policy))
    );
  }
}

/** Reasons of rungs that an API server which lags keeps open. */
const lagging: ReadonlySet<string> = new Set([
  'Revoking',
  'WaitingForFence',
  'AccountDeleting',
  'StillAccepted',
]);

/** What one look finds and does. */
class Look {
  killSwitch: KillSwitch;
  readonly signal: AbortSignal;
  readonly errors: unknown[] = [];
  /** What was taken away, for the log. */
  readonly done: string[] = [];
  foreignAccounts: readonly string[] = [];
  cut: readonly string[] = [];
  /** Milliseconds from now at which something is to be asked again. */
  dueMs: number | undefined;
  readonly #conditions: readonly Condition[];

  constructor(killSwitch: KillSwitch, signal: AbortSignal) {
    this.killSwitch = killSwitch;
    this.signal = signal;
    this.#conditions = killSwitch.status?.conditions ?? [];
  }

  /** @param milliseconds from now; `undefined` says nothing */
  dueAfter(milliseconds: number | undefined): void {
    if (milliseconds === undefined) return;
    this.dueMs = Math.min(milliseconds, this.dueMs ?? milliseconds);
  }

  conditionOf(type: string): Condition | undefined {
    return conditionOf(this.#conditions, type);
  }

  remainingOf(prefix: string): Remaining[] {
    return (this.killSwitch.status?.remaining ?? []).filter(({ what }) => what.startsWith(prefix));
  }

  /** Copies that were left at the last look. */
  get toldOfCopies(): Remaining[] {
    return (this.killSwitch.status?.remaining ?? []).filter(isCopy);
  }

  /**
   * A rung that was reached under a proven fence stays so until something of it shows up again.
   *
   * @param isQuiet the caches show nothing against it
   * @param told what remained at the last look, which is told on if this one fails
   */
  async rung(
    type: string,
    isQuiet: boolean,
    take: () => Promise<Rung>,
    told: readonly Remaining[] = [],
  ): Promise<Rung> {
    const standing = this.conditionOf(type);
    if (isQuiet && standing?.status === 'True' && isTrue(this.#conditions, 'Fenced')) {
      return { finding: findingOf(standing), remaining: [] };
    }
    try {
      return await take();
    } catch (error) {
      this.errors.push(error);
      return { ...notVerified(type, error), remaining: told };
    }
  }
}

function findingOf({ type, status, reason, message }: Condition): Finding {
  return { type, status, reason, message };
}

/** Names of the Secrets that an identity's credentials are in. */
export function secretsOf(identity: AutomationIdentity): string[] {
  const read = readSpec(identity);
  return credentialSecretsOf(identity, 'spec' in read ? read.spec : undefined);
}

/** On exactly the version that it was computed from. */
export function writeAnnotation(
  client: KubeClient,
  { metadata: { namespace = '', name, uid, resourceVersion } }: KillSwitch,
  text: string | undefined,
  signal: AbortSignal,
): Promise<KillSwitch> {
  return client.mergePatch(
    resources.killSwitches,
    { namespace, name },
    {
      metadata: {
        uid,
        resourceVersion,
        annotations: { [annotation.restoreServiceAccount]: text ?? null },
      },
    },
    { signal },
  );
}
