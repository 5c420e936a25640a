import type { AccessReview } from '../api/access-review.ts';
import type { Approval } from '../api/approval.ts';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import type { ClusterKillSwitch } from '../api/cluster-kill-switch.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import { annotation, API_VERSION, label, MANAGED_BY } from '../api/names.ts';
import type {
  Condition,
  KubeObject,
  NetworkPolicy,
  Pod,
  Role,
  RoleBinding,
} from '../api/objects.ts';
import { apiVersionOf, resources, type Resource } from '../api/resources.ts';
import type { Workflow } from '../api/workflow.ts';
import type { Workload } from '../api/workload.ts';
import { digestOf } from '../api/digest.ts';
import { ruleText } from '../guardrails/identity/rules.ts';
import { canonicalJson, sha256, type Json } from './canonical.ts';
import { hourOf, runScope, toldScope, type Fact, type Observation } from './observation.ts';
import type { Actor, RecordDraft, RecordObject } from './record.ts';

/**
 * What objects say of what was done. All of these are levels: looked at twice they say the same, so
 * that a list after a crash tells what was missed. Pure, but for the author of a change, who is
 * looked up.
 */

/** Where something happened. */
export interface Place {
  /** Label `environment` of the namespace. */
  environment?: string | undefined;
  /** Version of the Workflow, as {@link changeOf} has it. */
  change?: string | undefined;
  /** The kill that stands, as {@link incidentOf} has it. */
  incident?: string | undefined;
}

const operator: Actor = { name: MANAGED_BY, basis: 'operator' };
const unknown: Actor = { name: 'unknown', basis: 'unknown' };

/** Correlates a version of a Workflow with what it ran and what became of it. */
export function changeOf({ metadata }: KubeObject): string {
  return `${(metadata.uid ?? '').slice(0, 8)}-g${metadata.generation ?? 0}`;
}

/** Correlates everything of one kill. */
export function incidentOf({ metadata }: KubeObject): string {
  return (metadata.uid ?? '').slice(0, 8);
}

function referenceTo(of: Resource, { metadata }: KubeObject): RecordObject {
  const { name, namespace, uid, resourceVersion, generation } = metadata;
  return {
    apiVersion: apiVersionOf(of),
    kind: of.kind,
    name,
    ...(namespace !== undefined && { namespace }),
    ...(uid !== undefined && { uid }),
    ...(resourceVersion !== undefined && { resourceVersion }),
    ...(generation !== undefined && { generation }),
  };
}

interface DraftInit extends Partial<RecordDraft> {
  action: string;
}

function draftOf({ environment, change, incident }: Place, init: DraftInit): RecordDraft {
  return {
    outcome: 'Succeeded',
    actor: operator,
    ...(environment !== undefined && { environment }),
    ...(change !== undefined && { change }),
    ...(incident !== undefined && { incident }),
    ...init,
  };
}

/** Looks up who wrote a version of an object. */
export type AuthorOf = (of: Resource, object: KubeObject) => Promise<Actor>;

/** What somebody asked of an automation: its Workflow, or its identity. */
export function specFacts(
  of: Resource,
  object: KubeObject & { spec?: unknown },
  place: Place,
  authorOf: AuthorOf,
): Observation {
  const { kind } = of;
  const { uid = '', generation = 0 } = object.metadata;
  const digest = digestOf(object.spec);
  return {
    facts: [
      {
        subject: `${kind}/spec`,
        state: `${uid.slice(0, 8)} g${generation} ${digest}`,
        draft: async (before) =>
          draftOf(place, {
            action:
              before?.startsWith(uid.slice(0, 8)) === true ? `${kind}Changed` : `${kind}Created`,
            actor: await authorOf(of, object),
            objects: [referenceTo(of, object)],
            details: { digest, generation: String(generation) },
          }),
      },
    ],
  };
}

/** A Workflow or an identity that is no more. */
export function specGone(of: Resource, place: Place): Observation {
  return {
    scope: `${of.kind}/spec`,
    facts: [],
    gone: () =>
      draftOf(place, { action: `${of.kind}Deleted`, actor: unknown, outcome: 'Observed' }),
  };
}

/** What its guardrails found: conditions that are true when it is bad. */
export function findingFacts(
  of: Resource,
  object: KubeObject & { status?: { conditions?: Condition[] | undefined } },
  place: Place,
): Observation {
  const { kind } = of;
  const facts = (object.status?.conditions ?? []).flatMap((condition) => {
    const words = findings[condition.type];
    if (words === undefined) return [];
    const objects = [referenceTo(of, object)];
    return [conditionFact(`${kind}/${condition.type}`, condition, words, place, objects)];
  });
  return { facts };
}

interface Words {
  /** Action where the status becomes True. */
  on: string;
  /** Where it was True, and isn't any more. */
  off: string;
}

const findings: Readonly<Record<string, Words>> = {
  Held: { on: 'Held', off: 'NoLongerHeld' },
  ExcessPermissions: { on: 'ExcessPermissionsFound', off: 'ExcessPermissionsCleared' },
  RotationOverdue: { on: 'RotationOverdue', off: 'RotationCaughtUp' },
  LimitBreached: { on: 'LimitBreached', off: 'LimitHoldEnded' },
  EgressWidened: { on: 'EgressWidened', off: 'EgressAsListed' },
  ReviewOverdue: { on: 'ReviewOverdue', off: 'ReviewCaughtUp' },
};

function conditionFact(
  subject: string,
  { type, status, reason, message, lastTransitionTime }: Condition,
  { on, off }: Words,
  place: Place,
  objects: readonly RecordObject[],
): Fact {
  const isOn = status === 'True';
  return {
    subject,
    // Of what is bad, what it is: another message is another finding.
    state:
      `${status} ${lastTransitionTime} ${isOn && type in findings ? digestOf([reason, message]).slice(0, 16) : ''}`.trim(),
    draft: (before) =>
      isOn || before?.startsWith('True') === true
        ? draftOf(place, {
            action: isOn ? on : off,
            outcome: 'Observed',
            happened: lastTransitionTime,
            reason,
            message,
            objects,
          })
        : undefined,
  };
}

/** Credentials and tokens, by their times; never their values. */
export function credentialFacts(identity: AutomationIdentity, place: Place): Observation[] {
  const { automationIdentities } = resources;
  const objects = [referenceTo(automationIdentities, identity)];
  const { secrets = [], tokens = [] } = identity.status ?? {};
  const ofSecrets = secrets.flatMap(({ name, secretName, owner, lastRotationTime }): Fact[] => {
    if (lastRotationTime === undefined) return [];
    const actor: Actor = owner === undefined ? operator : { name: owner, basis: 'asserted' };
    return [
      {
        subject: `secret/${name}/`,
        state: lastRotationTime,
        draft: (before) =>
          draftOf(place, {
            action: before === undefined ? 'SecretIssued' : 'SecretRotated',
            actor,
            happened: lastRotationTime,
            objects,
            details: { secret: secretName },
          }),
      },
    ];
  });
  const ofTokens = tokens.flatMap(
    ({ name, secretName, audience, issuedAt, expirationTime = '' }): Fact[] => {
      if (issuedAt === undefined) return [];
      return [
        {
          subject: `token/${name}/`,
          state: issuedAt,
          draft: (before) =>
            draftOf(place, {
              action: before === undefined ? 'TokenIssued' : 'TokenRenewed',
              happened: issuedAt,
              objects,
              details: { secret: secretName, audience, expires: expirationTime },
            }),
        },
      ];
    },
  );
  const gone =
    (action: string) =>
    (subject: string): RecordDraft =>
      draftOf(place, { action, objects, details: { name: subject.split('/')[1] ?? '' } });
  return [
    { scope: 'secret/', facts: ofSecrets, gone: gone('SecretWithdrawn') },
    { scope: 'token/', facts: ofTokens, gone: gone('TokenRevoked') },
  ];
}

/** What an identity may do, by what binds it. */
export function permissionFacts(
  role: Role | undefined,
  binding: RoleBinding | undefined,
  place: Place,
): Observation {
  const granted = role !== undefined && binding !== undefined;
  const rules = role?.rules ?? [];
  return {
    scope: 'permissions/',
    facts: !granted
      ? []
      : [
          {
            subject: 'permissions/',
            state: digestOf(rules),
            draft: (before) =>
              draftOf(place, {
                action: before === undefined ? 'PermissionsGranted' : 'PermissionsChanged',
                objects: [
                  referenceTo(resources.roles, role),
                  referenceTo(resources.roleBindings, binding),
                ],
                details: rulesIn(rules),
              }),
          },
        ],
    gone: () => draftOf(place, { action: 'PermissionsRevoked' }),
  };
}

/** One text each, as far as there is room. */
function rulesIn(rules: NonNullable<Role['rules']>): Record<string, string> {
  return Object.fromEntries(
    rules
      .slice(0, 12)
      .map((rule, index) => [`rule${index + 1}`, ruleText(rule, (items) => items.join(', '))]),
  );
}

const decisionScope = 'decision/';

/** By its UID: a name could be longer than a subject can be. */
function decisionSubject(kind: string, { metadata }: KubeObject): string {
  return `${decisionScope}${kind}/${metadata.uid ?? ''}/`;
}

/** What somebody decided on a revision of a Workflow. */
export function approvalFact(approval: Approval, place: Place): Fact {
  const { metadata, spec } = approval;
  const { decision, reason, digest, ticket, expires, approver } = spec;
  return {
    subject: decisionSubject('Approval', approval),
    state: decision,
    draft: () =>
      draftOf(place, {
        action: decision === 'Approve' ? 'Approved' : 'Rejected',
        actor: approver === undefined ? unknown : { name: approver, basis: 'authenticated' },
        message: reason,
        objects: [referenceTo(resources.approvals, approval)],
        details: {
          digest,
          ...(ticket !== undefined && { ticket }),
          ...(expires !== undefined && { expires }),
        },
        ...(metadata.creationTimestamp !== undefined && { happened: metadata.creationTimestamp }),
      }),
  };
}

/** What somebody decided on what an AutomationIdentity may do. */
export function reviewFact(review: AccessReview, place: Place): Fact {
  const { metadata, spec } = review;
  const { decision, reason, digest, reviewer } = spec;
  return {
    subject: decisionSubject('AccessReview', review),
    state: decision,
    draft: () =>
      draftOf(place, {
        action: 'AccessReviewed',
        actor: reviewer === undefined ? unknown : { name: reviewer, basis: 'authenticated' },
        message: reason,
        objects: [referenceTo(resources.accessReviews, review)],
        details: { decision, digest },
        ...(metadata.creationTimestamp !== undefined && { happened: metadata.creationTimestamp }),
      }),
  };
}

/**
 * Decisions on one automation. One that is gone was withdrawn by somebody, or is so old that the
 * operator removed it.
 *
 * @param scope subjects of which this speaks completely; default: all decisions
 */
export function decisionFacts(
  facts: readonly Fact[],
  place: Place,
  scope = decisionScope,
): Observation {
  return {
    facts,
    scope,
    gone: (subject) => {
      const [, kind = '', uid = ''] = subject.split('/');
      return draftOf(place, { action: 'DecisionGone', actor: unknown, details: { kind, uid } });
    },
  };
}

/** One NetworkPolicy of a Workflow. */
export function egressFact(policy: NetworkPolicy, place: Place): Fact {
  return {
    subject: egressSubject(policy),
    state: digestOf(policy.spec),
    draft: (before) =>
      draftOf(place, {
        action: before === undefined ? 'EgressGranted' : 'EgressChanged',
        objects: [referenceTo(resources.networkPolicies, policy)],
        details: destinationsIn(policy),
      }),
  };
}

/** @param policies all of a Workflow */
export function egressFacts(policies: readonly NetworkPolicy[], place: Place): Observation {
  return {
    scope: egressScope,
    facts: policies.map((policy) => egressFact(policy, place)),
    gone: (subject) =>
      draftOf(place, {
        action: 'EgressRemoved',
        details: { policy: subject.slice(egressScope.length, -1) },
      }),
  };
}

const egressScope = 'egress/';

function egressSubject({ metadata }: KubeObject): string {
  return `${egressScope}${metadata.name}/`;
}

function destinationsIn({ spec }: NetworkPolicy): Record<string, string> {
  return Object.fromEntries(
    (spec.egress ?? []).slice(0, 12).map(({ to = [], ports = [] }, index) => {
      const peers = to.map(({ ipBlock, namespaceSelector }) => {
        if (ipBlock !== undefined) return ipBlock.cidr;
        return namespaceSelector === undefined ? 'pods' : 'pods of other namespaces';
      });
      const numbers = ports.map(
        ({ protocol, port, endPort }) =>
          `${protocol}/${port ?? 'any'}${endPort === undefined ? '' : `-${endPort}`}`,
      );
      return [`to${index + 1}`, `${peers.join(', ') || 'anywhere'} ${numbers.join(', ')}`];
    }),
  );
}

/** Rungs of the ladder, and what is told of them. */
const rungs: Readonly<Record<string, Words>> = Object.fromEntries(
  [
    'Fenced',
    'Paused',
    'PermissionsRevoked',
    'PodsGone',
    'SecretsWithdrawn',
    'IdentityRevoked',
    'TokensRevoked',
    'EgressClosed',
    'Effective',
    'Contested',
  ].map((type) => [type, { on: `Kill${type}`, off: `Kill${type}Lost` }]),
);

/** What stands of one kill, from the request to the release. */
export function killFacts(killSwitch: KillSwitch | ClusterKillSwitch, where: Place): Observation {
  const { metadata, spec, status } = killSwitch;
  const isOfCluster = metadata.namespace === undefined;
  const { annotations = {}, labels = {}, creationTimestamp } = metadata;
  const place = { ...where, incident: incidentOf(killSwitch) };
  const of = isOfCluster ? resources.clusterKillSwitches : resources.killSwitches;
  const objects = [referenceTo(of, killSwitch)];
  const subject = (name: string): string => `${killScope(killSwitch)}${name}/`;
  const { engagedBy } = spec;
  const facts: Fact[] = [
    {
      subject: subject('engaged'),
      state: engagedBy?.slice(0, 120) ?? 'unknown',
      draft: () =>
        draftOf(place, {
          action: 'KillEngaged',
          actor: engagedBy === undefined ? unknown : { name: engagedBy, basis: 'authenticated' },
          message: spec.reason,
          objects,
          details: { scope: scopeOf(spec) },
          ...(creationTimestamp !== undefined && { happened: creationTimestamp }),
        }),
    },
  ];
  for (const condition of status?.conditions ?? []) {
    const words = rungs[condition.type];
    if (words === undefined) continue;
    facts.push(conditionFact(subject(condition.type), condition, words, place, objects));
  }
  const asked = annotations[annotation.release];
  const askedBy = annotations[annotation.releasedBy];
  facts.push({
    subject: subject('release'),
    state:
      asked === undefined ? '-' : `${digestOf(asked).slice(0, 8)} ${askedBy ?? ''}`.slice(0, 120),
    draft: (before) =>
      asked === undefined && before === undefined
        ? undefined
        : draftOf(place, {
            action: asked === undefined ? 'ReleaseWithdrawn' : 'ReleaseRequested',
            actor: askedBy === undefined ? unknown : { name: askedBy, basis: 'authenticated' },
            objects,
            ...(asked !== undefined && { message: asked }),
          }),
  });
  const broken = annotations[annotation.breakGlass];
  if (broken !== undefined) {
    facts.push({
      subject: subject('break-glass'),
      state: digestOf(broken),
      draft: () =>
        draftOf(place, {
          action: 'GlassBroken',
          actor: { name: askedBy ?? 'unknown', basis: 'authenticated' },
          message: broken,
          objects,
        }),
    });
  }
  if (labels[label.releasing] !== undefined) {
    facts.push({
      subject: subject('lifted'),
      state: 'lifted',
      draft: () => draftOf(place, { action: 'KillLifted', objects }),
    });
  }
  return { facts };
}

function scopeOf(spec: KillSwitch['spec'] | ClusterKillSwitch['spec']): string {
  if ('reason' in spec && 'workflow' in spec) return spec.workflow ?? 'the whole namespace';
  if ('wholeNamespace' in spec) return 'the whole namespace';
  const { reason: _, engagedBy: __, ...selected } = spec;
  return JSON.stringify(selected);
}

const killsScope = 'kill/';

function killScope({ metadata }: KubeObject): string {
  return `${killsScope}${metadata.uid ?? ''}/`;
}

/**
 * All kills that stand for a chain: those that the chain knows and that aren't among them are over.
 *
 * @param standing of a Workflow's chain at most one, since it has the chain's name
 */
export function killsFacts(
  standing: readonly (KillSwitch | ClusterKillSwitch)[],
  place: Place,
): Observation {
  return {
    scope: killsScope,
    facts: standing.flatMap((one) => killFacts(one, place).facts),
    gone: (subject, state) => released(subject, state, place),
  };
}

/** One kill that is over. */
export function killGone(killSwitch: KillSwitch | ClusterKillSwitch, place: Place): Observation {
  return {
    scope: killScope(killSwitch),
    facts: [],
    gone: (subject, state) => released(subject, state, place),
  };
}

function released(
  subject: string,
  state: ReadonlyMap<string, string>,
  place: Place,
): RecordDraft | undefined {
  const [, uid = '', name] = subject.split('/');
  if (name !== 'engaged') return undefined;
  const asked = state.get(`${killsScope}${uid}/release/`)?.split(' ').slice(1).join(' ');
  const isReleased = state.has(`${killsScope}${uid}/lifted/`);
  return draftOf(
    { ...place, incident: uid.slice(0, 8) },
    {
      action: isReleased ? 'KillReleased' : 'KillGone',
      outcome: isReleased ? 'Succeeded' : 'Observed',
      details: { engagedBy: state.get(subject) ?? '', releasedBy: asked ?? '' },
      message: isReleased
        ? 'Everything is restored, and the KillSwitch is gone.'
        : 'The KillSwitch is gone without a release that was seen: with its namespace, or by force.',
    },
  );
}

/** A Job that ended, or a pod that nothing controls. */
export function runFact(run: Workload | Pod, pods: readonly Pod[], place: Place): Fact | undefined {
  const found = 'kind' in run && 'isPaused' in run ? jobRun(run, pods) : podRun(run);
  if (found === undefined) return undefined;
  const { succeeded, at, reason, details } = found;
  const isJob = 'isPaused' in run;
  return {
    subject: runSubject(run),
    state: at,
    ...(succeeded && { foldInto: hourOf(at) }),
    draft: () =>
      draftOf(place, {
        action: succeeded
          ? 'RunsSucceeded'
          : reason === 'DeadlineExceeded'
            ? 'RunTimedOut'
            : 'RunFailed',
        outcome: succeeded ? 'Succeeded' : 'Failed',
        actor: {
          name: isJob ? (ownerOf(run) ?? run.metadata.name) : run.metadata.name,
          basis: 'asserted',
        },
        happened: at,
        ...(reason !== undefined && { reason }),
        // Of successes there are many: they are counted.
        ...(!succeeded && {
          objects: [referenceTo(isJob ? resources.jobs : resources.pods, run)],
          details,
        }),
      }),
  };
}

/** @param runs all that are still there */
export function runFacts(runs: readonly Fact[]): Observation {
  return { scope: runScope, facts: runs };
}

/** A run of which nothing is left to count. */
export function runGone(run: KubeObject): Observation {
  return { scope: runSubject(run), facts: [] };
}

function runSubject({ metadata }: KubeObject): string {
  return `${runScope}${(metadata.uid ?? '').replaceAll('-', '').slice(0, 16)}/`;
}

interface Run {
  succeeded: boolean;
  at: string;
  reason?: string | undefined;
  details: Record<string, string>;
}

function jobRun({ end, metadata, ...job }: Workload, pods: readonly Pod[]): Run | undefined {
  if (end === undefined || end.at === '') return undefined;
  const own = pods.filter(({ metadata: { ownerReferences = [] } }) =>
    ownerReferences.some(({ uid }) => uid === metadata.uid),
  );
  const failed = own.filter(({ end: of }) => (of?.exitCode ?? 0) !== 0);
  const codes = failed.flatMap(({ end: of }) => of?.exitCode ?? []);
  const reasons = [...new Set(failed.flatMap(({ end: of }) => of?.reason ?? []))];
  return {
    succeeded: end.succeeded,
    at: end.at,
    reason: end.reason,
    details: {
      ...(ownerOf({ metadata, ...job }) !== undefined && {
        cronJob: ownerOf({ metadata, ...job }) ?? '',
      }),
      ...(end.startedAt !== undefined && { started: end.startedAt }),
      ...(codes.length > 0 && { exitCodes: codes.slice(0, 16).join(', ') }),
      ...(reasons.length > 0 && { podReasons: reasons.join(', ') }),
    },
  };
}

function podRun({ metadata, status, end }: Pod): Run | undefined {
  const isControlled = (metadata.ownerReferences ?? []).length > 0;
  if (isControlled || end?.at === undefined) return undefined;
  const { exitCode, reason } = end;
  return {
    succeeded: status?.phase === 'Succeeded',
    at: end.at,
    reason: status?.reason ?? reason,
    details: exitCode === undefined ? {} : { exitCodes: String(exitCode) },
  };
}

function ownerOf({ metadata }: KubeObject): string | undefined {
  return metadata.ownerReferences?.find(({ controller }) => controller === true)?.name;
}

/** What a controller told as an event, and no object keeps. */
export interface Told {
  about: KubeObject;
  reason: string;
  message: string;
}

/** Events that say what no object keeps. */
const toldReasons: ReadonlySet<string> = new Set([
  'NotRestored',
  'NotKept',
  'JobsNotStarted',
  'ReleaseCancelled',
]);

/** A repeat within this time is the same; milliseconds. */
const repeatMs = 600_000;

/** @param now milliseconds since the epoch */
export function toldFact({ about, reason, message }: Told, now: number): Observation | undefined {
  if (!toldReasons.has(reason) || about.kind === undefined) return undefined;
  const says: Json = [about.metadata.uid ?? '', reason, message, Math.floor(now / repeatMs)];
  const { name, namespace, uid } = about.metadata;
  return {
    facts: [
      {
        subject: `${toldScope}${sha256(canonicalJson(says)).slice(0, 16)}/`,
        state: reason,
        draft: () =>
          draftOf(about.kind === 'KillSwitch' ? { incident: incidentOf(about) } : {}, {
            action: reason,
            outcome: 'Observed',
            reason,
            message,
            objects: [
              {
                apiVersion: about.apiVersion ?? API_VERSION,
                kind: about.kind ?? '',
                name,
                ...(namespace !== undefined && { namespace }),
                ...(uid !== undefined && { uid }),
              },
            ],
          }),
      },
    ],
  };
}

/** Something of the operator itself. */
export function clusterFact(
  subject: string,
  state: string,
  action: string,
  details: Record<string, string>,
): Observation {
  return { facts: [{ subject, state, draft: () => draftOf({}, { action, details }) }] };
}

/** Whether the admission policies are in force, by the conditions of the standing probe. */
export function policyFacts({ metadata, status }: KillSwitch): Observation {
  const objects = [referenceTo(resources.killSwitches, { metadata })];
  const facts = (status?.conditions ?? []).flatMap(({ type, ...condition }): Fact[] => {
    if (type !== 'FenceInForce' && type !== 'PoliciesIntact') return [];
    const { status: now, reason, message, lastTransitionTime } = condition;
    return [
      {
        subject: `policies/${type}`,
        state: `${now} ${lastTransitionTime}`,
        draft: () =>
          draftOf(
            {},
            {
              action: type === 'FenceInForce' ? 'PoliciesProven' : 'PoliciesCompared',
              outcome: now === 'True' ? 'Succeeded' : 'Failed',
              happened: lastTransitionTime,
              reason,
              message,
              objects,
            },
          ),
      },
    ];
  });
  return { facts };
}

/** What is correlated with the Workflow's version. */
export function placeOf(
  environment: string | undefined,
  workflow: Workflow | undefined,
  killSwitch: KillSwitch | undefined,
): Place {
  return {
    environment,
    change: workflow && changeOf(workflow),
    incident: killSwitch && incidentOf(killSwitch),
  };
}
