import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import { countedLimits, type CountedLimit } from '../api/limits.ts';
import type { Attention } from './attention.ts';
import { maxAutomations, type RunCounts } from './run-tally.ts';

/** What a metric is: prom-client's configuration and the reference page both come from here. */
interface MetricDefinition {
  type: 'counter' | 'gauge' | 'histogram';
  /** Without the prefix. */
  name: string;
  help: string;
  /** Name of each label, and its values. */
  labels: Readonly<Record<string, string>>;
  /** Seconds. */
  buckets?: readonly number[];
}

const prefix = 'automation_guardrails_';

const controllers =
  '`workflow`, `automation-identity`, `approval`, `revisions`, `guardrail-policy`, `kill-switch`, `cluster-kill-switch`, `fence-in-force`';
const kinds = 'kind of the watched objects';

const runLabels = {
  automation: `\`namespace/name\` of the first ${maxAutomations} Workflows; \`other\` for the rest`,
  team: '`spec.owner.team`',
  escalation: '`spec.owner.escalation`',
};

const definitions = {
  reconciles: {
    type: 'counter',
    name: 'reconcile_total',
    help: 'Reconciles by controller and result.',
    labels: {
      controller: controllers,
      result: '`success`, `error`, `requeue` (not done yet, or somebody else wrote first)',
    },
  },
  reconcileDuration: {
    type: 'histogram',
    name: 'reconcile_duration_seconds',
    help: 'Time that one reconcile took.',
    labels: { controller: controllers },
    buckets: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
  },
  queueDepth: {
    type: 'gauge',
    name: 'workqueue_depth',
    help: 'Keys that wait for a worker.',
    labels: { controller: controllers },
  },
  queueLatency: {
    type: 'histogram',
    name: 'workqueue_queue_duration_seconds',
    help: 'Time that a key waited until a worker took it.',
    labels: { controller: controllers },
    buckets: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
  },
  watchRestarts: {
    type: 'counter',
    name: 'watch_restarts_total',
    help: 'Watches that ended and were started again, by what ended them.',
    labels: {
      kind: kinds,
      reason:
        '`timeout` (as asked for), `short`, `inactive`, `disconnected`, `expired`, `malformed`, `regressed`, `throttled`, `not_found`, `forbidden`, `server_error`',
    },
  },
  relists: {
    type: 'counter',
    name: 'relists_total',
    help: 'Lists after the first, by what made them necessary.',
    labels: {
      kind: kinds,
      reason: '`expired`, `malformed`, `regressed`, `server_error`, `not_found`',
    },
  },
  watchAge: {
    type: 'gauge',
    name: 'watch_last_event_age_seconds',
    help: 'Time since the last sign of life of a watch: an event, a bookmark or a list. Absent until the first list.',
    labels: { kind: kinds },
  },
  cachedObjects: {
    type: 'gauge',
    name: 'cached_objects',
    help: 'Objects in the caches.',
    labels: { kind: kinds },
  },
  killSwitches: {
    type: 'gauge',
    name: 'kill_switches',
    help: 'Kill switches by how far they are.',
    labels: {
      state:
        '`engaged` (not everything is stopped yet), `stopped` (every rung is reached), `releasing`',
    },
  },
  fenceInForce: {
    type: 'gauge',
    name: 'fence_in_force',
    help: 'What the standing probe found of an admission policy: 1 in force, 0 not in force, -1 no answer that proves anything. Reported by the leader.',
    labels: { policy: 'name of the policy' },
  },
  policyEdited: {
    type: 'gauge',
    name: 'policy_edited',
    help: '1 where an admission policy or its binding differs from what this version installs, else 0. Reported by the leader.',
    labels: { policy: 'name of the policy' },
  },
  admissionMutation: {
    type: 'gauge',
    name: 'admission_mutation',
    help: '1 where admission rewrites requests, so that writes of a stopped automation are stored paused; 0 where it only refuses them, and the operator pauses by patch: MutatingAdmissionPolicy v1 is not served (before Kubernetes 1.36), or its policies are not installed. Absent until the API server has answered.',
    labels: {},
  },
  stopDuration: {
    type: 'histogram',
    name: 'kill_switch_stop_duration_seconds',
    help: 'Time from the engagement of a kill switch until a rung was reached.',
    labels: {
      rung: 'condition of the KillSwitch that became true, such as `Fenced` or `PodsGone`',
    },
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 900],
  },
  brokenGlass: {
    type: 'counter',
    name: 'kill_switch_break_glass_total',
    help: 'Kill switches that were released without a second person or without an operator.',
    labels: {},
  },
  contestedWrites: {
    type: 'counter',
    name: 'kill_switch_contested_writes_total',
    help: 'Workloads that something had woken while they were stopped, and that were paused again.',
    labels: { kind: 'kind of the workload, such as `Deployment`' },
  },
  rotations: {
    type: 'counter',
    name: 'secret_rotations_total',
    help: 'Rotations of generated credentials that were tried.',
    labels: { result: '`success`, `error`' },
  },
  oldestCredentialAge: {
    type: 'gauge',
    name: 'oldest_credential_age_seconds',
    help: 'Age of the generated credential whose last rotation is longest ago. Absent where there is none, and on replicas that do not lead.',
    labels: {},
  },
  tokenIssues: {
    type: 'counter',
    name: 'token_issues_total',
    help: 'Tokens for runners outside of pods that were asked for, renewals among them.',
    labels: { result: '`success`, `error`' },
  },
  secretCopies: {
    type: 'counter',
    name: 'secret_store_operations_total',
    help: 'What was done with copies of credentials in a vault, and what could not be.',
    labels: {
      action: '`write` (a version), `destroy` (versions before), `withdraw` (all of them)',
      result: '`success`, `error`',
    },
  },
  remainingCopies: {
    type: 'gauge',
    name: 'secret_store_copies_remaining',
    help: 'Copies of credentials in a vault that are not known to be destroyed, and whose AutomationIdentity is gone or that are where the settings of the operator no longer lead. 0 on replicas that do not lead.',
    labels: {},
  },
  soonestTokenExpiry: {
    type: 'gauge',
    name: 'soonest_token_expiry_seconds',
    help: 'Time until the first of the published tokens for runners outside of pods expires; below 0 it has. One that is renewed in time has a fifth of its life left. Absent where there is none, and on replicas that do not lead.',
    labels: {},
  },
  attention: {
    type: 'gauge',
    name: 'attention_seconds',
    help: 'Objects that somebody should look at, and for how long that has been so; of a hold, each reason that nobody has acknowledged. Those that have waited longest; every replica reports them.',
    labels: {
      kind: '`Workflow`, `AutomationIdentity`, `KillSwitch`',
      automation: '`namespace/name`',
      condition:
        'type of the condition that is bad: `Held`, `Ready`, `LimitBreached`, `RotationOverdue`, `ExcessPermissions`, `ReviewOverdue`, `PolicyViolation`, `DutiesOverlap`, `EgressWidened`, `SecretInSpec`, `Contested`; of a KillSwitch `Fenced` or `Effective` where that is not reached, or `Releasing` while it is being released',
      reason:
        'reason of that condition, of `Held` one entry of `status.holds`; `NotYet` where no operator has worked on it yet',
      team: '`spec.owner.team`',
      escalation: '`spec.owner.escalation`',
    },
  },
  attentionLeftOut: {
    type: 'gauge',
    name: 'attention_objects_left_out',
    help: 'Objects that somebody should look at, beyond those of `attention_seconds`.',
    labels: {},
  },
  heldObjects: {
    type: 'gauge',
    name: 'held_objects',
    help: 'Objects that are granted nothing new because something is missing. Reported by the leader.',
    labels: { kind: '`Workflow`, `AutomationIdentity`', reason: 'reason of the condition `Held`' },
  },
  limitBreaches: {
    type: 'counter',
    name: 'limit_breaches_total',
    help: 'Limits of Workflows that were breached.',
    labels: { limit: countedLimits.map((limit) => `\`${limit}\``).join(', ') },
  },
  runsStarted: {
    type: 'counter',
    name: 'runs_started_total',
    help: 'Jobs of Workflows that were started while this replica looked. Every replica reports them.',
    labels: runLabels,
  },
  runsEnded: {
    type: 'counter',
    name: 'runs_ended_total',
    help: 'Jobs of Workflows that ended while this replica looked. Every replica reports them.',
    labels: { ...runLabels, result: '`succeeded`, `failed`' },
  },
  excessPermissions: {
    type: 'gauge',
    name: 'excess_permissions',
    help: 'AutomationIdentities by what is known of their rights beyond those that they declare. Reported by the leader.',
    labels: {
      state:
        '`excess` (others let the ServiceAccount do more), `unknown` (the operator may not list what could)',
    },
  },
  overdueReviews: {
    type: 'gauge',
    name: 'overdue_access_reviews',
    help: 'AutomationIdentities whose access review is overdue, or void because what they may do has changed. Reported by the leader.',
    labels: {},
  },
  nextReviewDue: {
    type: 'gauge',
    name: 'next_access_review_due_timestamp_seconds',
    help: 'When the first of the access reviews is due, or was, in seconds since the epoch. Absent where none is asked for, and on replicas that do not lead.',
    labels: {},
  },
  workflowEgress: {
    type: 'gauge',
    name: 'workflow_egress',
    help: 'Workflows by their conditions of egress. Reported by the leader.',
    labels: {
      condition: '`EgressDeclared`, `EgressEnforced`, `EgressWidened`, `UnusualDestinations`',
      status: '`True`, `False`, `Unknown`',
    },
  },
  egressLeft: {
    type: 'gauge',
    name: 'egress_left_behind',
    help: 'Automations whose Workflow was deleted and whose policies of egress stay. Reported by the leader.',
    labels: {
      keeper:
        'what keeps them: `Pods` that still run as the identity, the `Identity` as which more could start, a `ServiceAccount` of that name that the operator did not make, or a `KillSwitch`',
    },
  },
  requests: {
    type: 'counter',
    name: 'kube_api_requests_total',
    help: 'Requests to the API server; a watch counts when it begins.',
    labels: {
      verb: 'as in RBAC: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`',
      code: 'HTTP status; without an answer `timeout`, `aborted` or `error`',
    },
  },
  requestDuration: {
    type: 'histogram',
    name: 'kube_api_request_duration_seconds',
    help: 'Time until the API server answered; of a watch, until it began.',
    labels: { verb: 'as in `kube_api_requests_total`' },
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
  },
  leader: {
    type: 'gauge',
    name: 'leader',
    help: '1 while this replica leads, else 0.',
    labels: {},
  },
  droppedEvents: {
    type: 'counter',
    name: 'events_dropped_total',
    help: 'Kubernetes events that were not recorded: too many, or refused by the API server.',
    labels: {},
  },
  driftRepairs: {
    type: 'counter',
    name: 'drift_repaired_total',
    help: 'Objects of the operator that somebody else changed, and that were repaired.',
    labels: { kind: '`ServiceAccount`, `Role`, `RoleBinding`, `NetworkPolicy`' },
  },
  evidenceRecords: {
    type: 'counter',
    name: 'evidence_records_total',
    help: 'Records of evidence that stand in the API.',
    labels: {},
  },
  evidenceFailures: {
    type: 'counter',
    name: 'evidence_write_failures_total',
    help: 'Writes of evidence that failed, and are tried again.',
    labels: {},
  },
  evidenceDroppedRuns: {
    type: 'counter',
    name: 'evidence_runs_dropped_total',
    help: 'Starts and successes of runs that were dropped before they were counted in evidence: nothing could be written for too long.',
    labels: {},
  },
  evidenceForwarded: {
    type: 'counter',
    name: 'evidence_otlp_records_total',
    help: 'Records of evidence for the OTLP receiver, by what became of them.',
    labels: { result: '`sent`, `dropped` (it was too slow, or refused them)' },
  },
  evidencePending: {
    type: 'gauge',
    name: 'evidence_pending',
    help: 'Observations that wait to be recorded.',
    labels: {},
  },
  buildInfo: {
    type: 'gauge',
    name: 'build_info',
    help: 'Always 1; the labels say what runs.',
    labels: { version: 'version of the operator', node_version: 'version of Node.js' },
  },
} as const satisfies Record<string, MetricDefinition>;

const egressConditions = [
  'EgressDeclared',
  'EgressEnforced',
  'EgressWidened',
  'UnusualDestinations',
] as const;
/** What keeps policies of a Workflow that was deleted. */
const egressKeepers = ['Pods', 'Identity', 'KillSwitch'] as const;
const conditionStatuses = ['True', 'False', 'Unknown'] as const;

const excessStates = ['excess', 'unknown'] as const;

const killSwitchStates = ['engaged', 'stopped', 'releasing'] as const;
export type KillSwitchState = (typeof killSwitchStates)[number];

/** What is asked when metrics are collected. */
export interface MetricsSources {
  /** Whether this replica leads. */
  isLeader: () => boolean;
  /** Copies in a vault whose identity is gone, or that are where the settings no longer lead. */
  remainingCopies: () => number;
  /** The state of each kill switch. */
  killSwitchStates: () => Iterable<KillSwitchState>;
  /** What somebody should look at, those that have waited longest first. */
  attention: () => readonly Attention[];
  /** Runs of each automation since this process began. */
  runs: () => Iterable<RunCounts>;
  /** Milliseconds since the epoch. */
  clock?: () => number;
}

export interface MetricsOptions {
  /** Version of the operator; default `unknown`. */
  version?: string;
}

/** What is read of a cache when metrics are collected. */
interface TrackedCache {
  readonly hasSynced: boolean;
  readonly stalenessMs: number;
  readonly store: { readonly size: number };
}

/** Series of `attention_seconds`: enough for people, and a bound for Prometheus. */
const maxAttention = 200;

/** Distinct values of one label; a value beyond is counted as `other`. */
const maxLabelValues = 64;

/**
 * All metrics of the operator, in a registry of their own. The parts of the operator see it through
 * narrow interfaces of theirs. Only `attention_seconds` and the counts of runs have labels with names
 * of objects; the number of series of each metric is bounded.
 */
export class Metrics {
  readonly registry = new Registry();
  readonly #labelValues = new Map<string, Set<string>>();
  readonly #caches = new Map<string, TrackedCache[]>();
  /** Of each held object, its kind and its reason. */
  readonly #held = new Map<string, { kind: string; reason: string }>();
  /** Milliseconds since the epoch, by AutomationIdentity. */
  readonly #rotatedAt = new Map<string, number>();
  /** By AutomationIdentity. */
  /** Of each Workflow, the status of its conditions of egress. */
  readonly #egressLeft = new Map<string, (typeof egressKeepers)[number]>();
  readonly #egress = new Map<string, readonly { type: string; status: string }[]>();
  readonly #excess = new Map<string, (typeof excessStates)[number]>();
  /** Milliseconds since the epoch, by AutomationIdentity. */
  readonly #tokenExpiries = new Map<string, number>();
  /** By AutomationIdentity; `due` in milliseconds since the epoch. */
  readonly #reviews = new Map<string, { due: number; isOverdue: boolean }>();
  #sources: MetricsSources | undefined;

  readonly #reconciles = this.#counter(definitions.reconciles);
  readonly #reconcileDuration = this.#histogram(definitions.reconcileDuration);
  readonly #queueDepth = this.#gauge(definitions.queueDepth);
  readonly #queueLatency = this.#histogram(definitions.queueLatency);
  readonly #watchRestarts = this.#counter(definitions.watchRestarts);
  readonly #relists = this.#counter(definitions.relists);
  readonly #fenceInForce = this.#gauge(definitions.fenceInForce);
  readonly #policyEdited = this.#gauge(definitions.policyEdited);
  readonly #admissionMutation = this.#gauge(definitions.admissionMutation);
  readonly #stopDuration = this.#histogram(definitions.stopDuration);
  readonly #brokenGlass = this.#counter(definitions.brokenGlass);
  readonly #contestedWrites = this.#counter(definitions.contestedWrites);
  readonly #rotations = this.#counter(definitions.rotations);
  readonly #tokenIssues = this.#counter(definitions.tokenIssues);
  readonly #secretCopies = this.#counter(definitions.secretCopies);
  readonly #limitBreaches = this.#counter(definitions.limitBreaches);
  readonly #requests = this.#counter(definitions.requests);
  readonly #requestDuration = this.#histogram(definitions.requestDuration);
  readonly #droppedEvents = this.#counter(definitions.droppedEvents);
  readonly #driftRepairs = this.#counter(definitions.driftRepairs);
  readonly #evidenceRecords = this.#counter(definitions.evidenceRecords);
  readonly #evidenceFailures = this.#counter(definitions.evidenceFailures);
  readonly #evidenceDroppedRuns = this.#counter(definitions.evidenceDroppedRuns);
  readonly #evidenceForwarded = this.#counter(definitions.evidenceForwarded);
  readonly #evidencePending = this.#gauge(definitions.evidencePending);

  constructor({ version = 'unknown' }: MetricsOptions = {}) {
    this.#gauge(definitions.watchAge, (gauge) => this.#collectWatchAges(gauge));
    this.#gauge(definitions.cachedObjects, (gauge) => this.#collectCachedObjects(gauge));
    this.#gauge(definitions.killSwitches, (gauge) => this.#collectKillSwitches(gauge));
    this.#gauge(definitions.oldestCredentialAge, (gauge) => this.#collectCredentialAge(gauge));
    this.#gauge(definitions.soonestTokenExpiry, (gauge) => this.#collectTokenExpiry(gauge));
    this.#gauge(definitions.remainingCopies, (gauge) =>
      gauge.set(this.#sources?.remainingCopies() ?? 0),
    );
    this.#gauge(definitions.attention, (gauge) => this.#collectAttention(gauge));
    this.#gauge(definitions.attentionLeftOut, (gauge) => {
      gauge.set(Math.max(0, (this.#sources?.attention() ?? []).length - maxAttention));
    });
    this.#counter(definitions.runsStarted, (counter) => {
      for (const { counts, ...labels } of this.#runs()) counter.inc(labels, counts.started);
    });
    this.#counter(definitions.runsEnded, (counter) => {
      for (const { counts, ...labels } of this.#runs()) {
        for (const result of ['succeeded', 'failed'] as const) {
          counter.inc({ ...labels, result }, counts[result]);
        }
      }
    });
    this.#gauge(definitions.heldObjects, (gauge) => this.#collectHeldObjects(gauge));
    this.#gauge(definitions.excessPermissions, (gauge) => this.#collectExcess(gauge));
    this.#gauge(definitions.overdueReviews, (gauge) => {
      gauge.set([...this.#reviews.values()].filter(({ isOverdue }) => isOverdue).length);
    });
    this.#gauge(definitions.nextReviewDue, (gauge) => this.#collectNextReview(gauge));
    this.#gauge(definitions.egressLeft, (gauge) => this.#collectEgressLeft(gauge));
    this.#gauge(definitions.workflowEgress, (gauge) => this.#collectEgress(gauge));
    this.#gauge(definitions.leader, (gauge) =>
      gauge.set(this.#sources?.isLeader() === true ? 1 : 0),
    );
    this.#gauge(definitions.buildInfo).set({ version, node_version: process.version }, 1);
    // Without a value it would say 0 before anybody was asked.
    this.#admissionMutation.remove();
    // A counter that isn't there yet hides its first increase from `increase()`.
    for (const result of ['success', 'error']) {
      this.#rotations.inc({ result }, 0);
      this.#tokenIssues.inc({ result }, 0);
      for (const action of ['write', 'destroy', 'withdraw']) {
        this.#secretCopies.inc({ action, result }, 0);
      }
    }
    for (const limit of countedLimits) this.#limitBreaches.inc({ limit }, 0);
    collectDefaultMetrics({ register: this.registry });
  }

  /** All metrics, in the exposition format of Prometheus. */
  async scrape(): Promise<{ contentType: string; body: string }> {
    return { contentType: this.registry.contentType, body: await this.registry.metrics() };
  }

  /** One reconcile ended. */
  observeReconcile(
    controller: string,
    result: 'success' | 'error' | 'requeue',
    seconds: number,
  ): void {
    this.#reconciles.inc({ controller: this.#bounded('controller', controller), result });
    this.#reconcileDuration.observe(
      { controller: this.#bounded('controller', controller) },
      seconds,
    );
  }

  setQueueDepth(controller: string, depth: number): void {
    this.#queueDepth.set({ controller: this.#bounded('controller', controller) }, depth);
  }

  /** A worker took a key that had waited so long. */
  observeQueueLatency(controller: string, seconds: number): void {
    this.#queueLatency.observe({ controller: this.#bounded('controller', controller) }, seconds);
  }

  watchRestarted(kind: string, reason: string): void {
    this.#watchRestarts.inc({
      kind: this.#bounded('kind', kind),
      reason: this.#bounded('watch reason', reason),
    });
  }

  relisted(kind: string, reason: string): void {
    this.#relists.inc({
      kind: this.#bounded('kind', kind),
      reason: this.#bounded('relist reason', reason),
    });
  }

  /**
   * Reports age and size of a cache from now on. Of several caches of one kind, the objects are
   * added up, and the age is that of the oldest.
   */
  track(kind: string, cache: TrackedCache): void {
    const label = this.#bounded('kind', kind);
    const caches = this.#caches.get(label) ?? [];
    this.#caches.set(label, caches);
    caches.push(cache);
  }

  /** Reports from now on what these say when metrics are collected. */
  observe(sources: MetricsSources): void {
    this.#sources = sources;
  }

  /** Whether admission rewrites requests. */
  setAdmissionMutation(isInForce: boolean): void {
    this.#admissionMutation.set(isInForce ? 1 : 0);
  }

  /** Seconds from the engagement of a kill switch until a rung of the ladder was reached. */
  observeStop(rung: string, seconds: number): void {
    this.#stopDuration.observe({ rung: this.#bounded('rung', rung) }, seconds);
  }

  countBreakGlass(): void {
    this.#brokenGlass.inc();
  }

  /** A workload that something had woken while it was stopped was paused again. */
  countContestedWrite(kind: string): void {
    this.#contestedWrites.inc({ kind: this.#bounded('contested kind', kind) });
  }

  /** @param states of all admission policies, by name; empty where nothing is known of them */
  setPolicies(states: ReadonlyMap<string, { force: 1 | 0 | -1; edited: boolean }>): void {
    this.#fenceInForce.reset();
    this.#policyEdited.reset();
    for (const [policy, { force, edited }] of states) {
      this.#fenceInForce.set({ policy }, force);
      this.#policyEdited.set({ policy }, edited ? 1 : 0);
    }
  }

  countRotation(result: 'success' | 'error'): void {
    this.#rotations.inc({ result });
  }

  /**
   * @param key `namespace/name` of the AutomationIdentity
   * @param rotatedAt milliseconds since the epoch; `undefined` where it has no credential
   */
  setOldestCredential(key: string, rotatedAt: number | undefined): void {
    if (rotatedAt === undefined) this.#rotatedAt.delete(key);
    else this.#rotatedAt.set(key, rotatedAt);
  }

  /** A token for runners outside of pods was asked for. */
  countTokenIssue(result: 'success' | 'error'): void {
    this.#tokenIssues.inc({ result });
  }

  /** Something was done with a copy of a credential in a vault, or couldn't be. */
  countSecretCopy(action: 'write' | 'destroy' | 'withdraw', result: 'success' | 'error'): void {
    this.#secretCopies.inc({ action, result });
  }

  /**
   * @param key `namespace/name` of the AutomationIdentity
   * @param expiresAt milliseconds since the epoch; `undefined` where it has no token
   */
  setSoonestTokenExpiry(key: string, expiresAt: number | undefined): void {
    if (expiresAt === undefined) this.#tokenExpiries.delete(key);
    else this.#tokenExpiries.set(key, expiresAt);
  }

  /**
   * @param key `namespace/name` of the object
   * @param reason `undefined` where nothing is held
   */
  setHeld(kind: string, key: string, reason: string | undefined): void {
    const id = `${kind} ${key}`;
    if (reason === undefined) this.#held.delete(id);
    else this.#held.set(id, { kind, reason });
  }

  /** A limit of a Workflow was breached. */
  countLimitBreach(limit: CountedLimit): void {
    this.#limitBreaches.inc({ limit });
  }

  /**
   * @param key `namespace/name` of the AutomationIdentity
   * @param state `undefined` where its ServiceAccount may do no more than it declares
   */
  setExcess(key: string, state: (typeof excessStates)[number] | undefined): void {
    if (state === undefined) this.#excess.delete(key);
    else this.#excess.set(key, state);
  }

  /**
   * @param key `namespace/name` of the AutomationIdentity
   * @param review `undefined` where no reviews are asked for; `due` in milliseconds since the epoch
   */
  setReview(key: string, review: { due: number; isOverdue: boolean } | undefined): void {
    if (review === undefined) this.#reviews.delete(key);
    else this.#reviews.set(key, review);
  }

  /**
   * @param key `namespace/name` of the Workflow
   * @param conditions those of egress; `undefined` where it is gone
   */
  setEgress(
    key: string,
    conditions: readonly { type: string; status: string }[] | undefined,
  ): void {
    if (conditions === undefined) this.#egress.delete(key);
    else
      this.#egress.set(
        key,
        conditions.map(({ type, status }) => ({ type, status })),
      );
  }

  /**
   * What keeps policies of egress whose Workflow was deleted.
   *
   * @param key `namespace/name` of the Workflow
   * @param keeper `undefined` where no policies are left behind
   */
  setEgressLeft(key: string, keeper: (typeof egressKeepers)[number] | undefined): void {
    if (keeper === undefined) this.#egressLeft.delete(key);
    else this.#egressLeft.set(key, keeper);
  }

  /** Forgets what was told of single objects: this replica no longer leads, another one tells. */
  forgetObjects(): void {
    this.#held.clear();
    this.#excess.clear();
    this.#egress.clear();
    this.#egressLeft.clear();
    this.#rotatedAt.clear();
    this.#tokenExpiries.clear();
    this.#reviews.clear();
    this.setPolicies(new Map());
  }

  /** A request was answered, or not; see the labels of `kube_api_requests_total`. */
  observeRequest(verb: string, code: string, seconds: number): void {
    const label = this.#bounded('verb', verb);
    this.#requests.inc({ verb: label, code: this.#bounded('code', code) });
    this.#requestDuration.observe({ verb: label }, seconds);
  }

  /** A Kubernetes event was not recorded. */
  countDroppedEvent(): void {
    this.#droppedEvents.inc();
  }

  countDriftRepair(kind: string): void {
    this.#driftRepairs.inc({ kind });
  }

  countRecords(count: number): void {
    this.#evidenceRecords.inc(count);
  }

  countEvidenceFailure(): void {
    this.#evidenceFailures.inc();
  }

  countDroppedRuns(count: number): void {
    this.#evidenceDroppedRuns.inc(count);
  }

  countForwarded(count: number): void {
    this.#evidenceForwarded.inc({ result: 'sent' }, count);
  }

  countNotForwarded(count: number): void {
    this.#evidenceForwarded.inc({ result: 'dropped' }, count);
  }

  setEvidencePending(count: number): void {
    this.#evidencePending.set(count);
  }

  #collectWatchAges(gauge: Gauge): void {
    gauge.reset();
    for (const [kind, caches] of this.#caches) {
      // Nothing is watched yet, or ever: the API server may not serve the kind.
      const watched = caches.filter(({ hasSynced }) => hasSynced);
      if (watched.length === 0) continue;
      gauge.set({ kind }, Math.max(...watched.map(({ stalenessMs }) => stalenessMs)) / 1000);
    }
  }

  #collectCachedObjects(gauge: Gauge): void {
    gauge.reset();
    for (const [kind, caches] of this.#caches) {
      gauge.set(
        { kind },
        caches.reduce((sum, { store }) => sum + store.size, 0),
      );
    }
  }

  #collectKillSwitches(gauge: Gauge): void {
    for (const state of killSwitchStates) gauge.set({ state }, 0);
    for (const state of this.#sources?.killSwitchStates() ?? []) gauge.inc({ state });
  }

  #collectTokenExpiry(gauge: Gauge): void {
    let soonest = Number.POSITIVE_INFINITY;
    for (const expiresAt of this.#tokenExpiries.values()) soonest = Math.min(soonest, expiresAt);
    if (soonest === Number.POSITIVE_INFINITY) gauge.remove();
    else gauge.set((soonest - (this.#sources?.clock ?? Date.now)()) / 1000);
  }

  #collectNextReview(gauge: Gauge): void {
    let next = Number.POSITIVE_INFINITY;
    for (const { due } of this.#reviews.values()) next = Math.min(next, due);
    if (next === Number.POSITIVE_INFINITY) gauge.remove();
    else gauge.set(next / 1000);
  }

  #collectCredentialAge(gauge: Gauge): void {
    let oldest = Number.POSITIVE_INFINITY;
    for (const rotatedAt of this.#rotatedAt.values()) oldest = Math.min(oldest, rotatedAt);
    if (oldest === Number.POSITIVE_INFINITY) gauge.remove();
    else gauge.set(Math.max(0, (this.#sources?.clock ?? Date.now)() - oldest) / 1000);
  }

  #collectAttention(gauge: Gauge): void {
    gauge.reset();
    const now = (this.#sources?.clock ?? Date.now)();
    const first = (this.#sources?.attention() ?? []).slice(0, maxAttention);
    for (const { since, ...labels } of first) {
      gauge.set(labels, Math.max(0, (now - since) / 1000));
    }
  }

  #collectHeldObjects(gauge: Gauge): void {
    gauge.reset();
    for (const { kind, reason } of this.#held.values()) {
      gauge.inc({
        kind: this.#bounded('kind', kind),
        reason: this.#bounded('held reason', reason),
      });
    }
  }

  #collectEgressLeft(gauge: Gauge): void {
    for (const keeper of egressKeepers) gauge.set({ keeper }, 0);
    for (const keeper of this.#egressLeft.values()) gauge.inc({ keeper });
  }

  #collectEgress(gauge: Gauge): void {
    for (const condition of egressConditions) {
      for (const status of conditionStatuses) gauge.set({ condition, status }, 0);
    }
    for (const conditions of this.#egress.values()) {
      for (const { type: condition, status } of conditions) gauge.inc({ condition, status });
    }
  }

  #collectExcess(gauge: Gauge): void {
    for (const state of excessStates) gauge.set({ state }, 0);
    for (const state of this.#excess.values()) gauge.inc({ state });
  }

  /** The value, or `other` where the label has too many values already. */
  #bounded(label: string, value: string): string {
    const values = this.#labelValues.get(label) ?? new Set();
    this.#labelValues.set(label, values);
    if (!values.has(value) && values.size >= maxLabelValues) return 'other';
    values.add(value);
    return value;
  }

  #runs(): Iterable<RunCounts> {
    return this.#sources?.runs() ?? [];
  }

  /** @param collect counts all of it when metrics are collected */
  #counter(definition: MetricDefinition, collect?: (counter: Counter) => void): Counter {
    return new Counter({
      ...this.#configuration(definition),
      ...(collect !== undefined && {
        collect(this: Counter): void {
          this.reset();
          collect(this);
        },
      }),
    });
  }

  /** @param collect sets the value when metrics are collected */
  #gauge(definition: MetricDefinition, collect?: (gauge: Gauge) => void): Gauge {
    return new Gauge({
      ...this.#configuration(definition),
      ...(collect !== undefined && {
        collect(this: Gauge): void {
          collect(this);
        },
      }),
    });
  }

  #histogram(definition: MetricDefinition): Histogram {
    const { buckets } = definition;
    return new Histogram({
      ...this.#configuration(definition),
      ...(buckets !== undefined && { buckets: [...buckets] }),
    });
  }

  #configuration({ name, help, labels }: MetricDefinition): {
    name: string;
    help: string;
    labelNames: string[];
    registers: Registry[];
  } {
    return {
      name: prefix + name,
      help,
      labelNames: Object.keys(labels),
      registers: [this.registry],
    };
  }
}

/** `docs/reference/metrics.md`. */
export function metricsReference(): string {
  const sections = Object.values(definitions).map((definition: MetricDefinition) => {
    const labels = Object.entries(definition.labels);
    return [
      `## ${prefix}${definition.name}`,
      '',
      `${definition.help} (${definition.type})`,
      ...(labels.length > 0
        ? ['', '| label | values |', '|---|---|', ...labels.map(([k, v]) => `| \`${k}\` | ${v} |`)]
        : []),
      ...(definition.buckets ? ['', `Buckets in seconds: ${definition.buckets.join(', ')}.`] : []),
      '',
    ].join('\n');
  });
  return `<!-- Generated by \`npm run generate\` from src/observability/metrics.ts. Do not edit. -->

# Metrics

Served at \`/metrics\` on \`--metrics-port\` in Prometheus' text format. Names of objects are labels of \`${prefix}attention_seconds\`, which has ${maxAttention} series at most, and of the counts of runs, of ${maxAutomations} Workflows at most; a label with more than ${maxLabelValues} values counts the rest as \`other\`. Times are in seconds, counters end in \`_total\`.

Each replica reports for itself. \`held_objects\`, \`workflow_egress\`, \`egress_left_behind\`, \`excess_permissions\`, \`oldest_credential_age_seconds\`, \`soonest_token_expiry_seconds\`, \`secret_store_copies_remaining\`, \`overdue_access_reviews\` and \`next_access_review_due_timestamp_seconds\` come from the leader alone; kill switches and \`attention_seconds\` are seen by every replica, so take the maximum, not the sum.

Beside these, the metrics of the process and of Node.js are served under their usual names (\`process_*\`, \`nodejs_*\`), the lag of the event loop among them (\`nodejs_eventloop_lag_p99_seconds\`).

${sections.join('\n')}`;
}
