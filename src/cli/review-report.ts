import type { AccessReview } from '../api/access-review.ts';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import { conditionOf } from '../api/conditions.ts';
import { formatDuration } from '../api/duration.ts';
import { stampOf, type Pod, type PolicyRule } from '../api/objects.ts';
import type { EgressEntry, Workflow } from '../api/workflow.ts';
import { canonicalRules, digestOf } from '../guardrails/identity/digest.ts';
import { ruleText } from '../guardrails/identity/rules.ts';
import type { Grant } from '../guardrails/identity/effective.ts';
import { withoutRefused } from '../guardrails/identity/refused.ts';
import { rulesOf } from '../guardrails/identity/rules.ts';

/** All that a review is made from. */
export interface ReviewFacts {
  identity: AutomationIdentity;
  /** What others grant beyond what is declared; `undefined` where the reader may not list it. */
  beyond: readonly Grant[] | undefined;
  workflow: Workflow | undefined;
  /** Of this identity. */
  reviews: readonly AccessReview[];
  /** That run as it, and those that ended and are still there; `undefined` where the reader may not list them. */
  pods: readonly Pod[] | undefined;
  /** Milliseconds since the epoch. */
  now: number;
}

/** What a reviewer has to know of an identity, a list of lines for each question. */
export interface ReviewReport {
  /** `namespace/name` of the AutomationIdentity. */
  identity: string;
  /** Of what is shown here; `undefined` where neither the operator nor the reader knows all of it. */
  digest: string | undefined;
  /**
   * Whether a review of it would count: `Unpublished` where no operator says what it may do, `Stale`
   * where it says something else than what is shown.
   */
  state: 'Current' | 'Unpublished' | 'Stale';
  sections: { title: string; lines: string[] }[];
}

/** What a reviewer is shown. Nothing of it is a secret value. */
export function reviewReport(facts: ReviewFacts): ReviewReport {
  const { identity, beyond } = facts;
  const { namespace = '', name, generation } = identity.metadata;
  const { permissions } = withoutRefused(identity.spec.permissions ?? [], name);
  const published = identity.status?.accessReview?.digest;
  const digest =
    beyond === undefined ? published : digestOf(canonicalRules(rulesOf(permissions)), beyond, []);
  const isCurrent = digest === published && identity.status?.observedGeneration === generation;
  return {
    identity: `${namespace}/${name}`,
    digest,
    state: published === undefined ? 'Unpublished' : isCurrent ? 'Current' : 'Stale',
    sections: [
      { title: 'Who', lines: who(facts) },
      { title: 'May do, as declared', lines: declared(identity) },
      { title: 'May do besides, granted by others', lines: besides(facts) },
      { title: 'Credentials', lines: credentials(facts) },
      { title: 'Tokens for runners outside of pods', lines: tokens(identity) },
      { title: 'May connect to', lines: egress(facts.workflow) },
      { title: 'Last use', lines: lastUse(facts) },
      { title: 'Reviews', lines: reviews(facts) },
    ],
  };
}

/** The same as text, line by line. */
export function reviewText({ identity, digest, sections }: ReviewReport): string[] {
  return [
    `AutomationIdentity ${identity}`,
    ...sections.flatMap(({ title, lines }) => ['', title, ...lines.map((line) => `  ${line}`)]),
    '',
    `Digest of what it may do: ${digest ?? 'not known'}`,
  ];
}

function who({ identity, now }: ReviewFacts): string[] {
  const { metadata, spec, status } = identity;
  const { team, contact, escalation } = spec.owner ?? {};
  const held = conditionOf(status?.conditions, 'Held');
  const ready = conditionOf(status?.conditions, 'Ready');
  return [
    `Purpose     ${spec.purpose ?? 'not said'}`,
    `Owner       ${[team, contact, escalation].map((part) => part ?? 'not said').join(', ')}`,
    `Created     ${timeAndAge(metadata.creationTimestamp, now)}`,
    `Changed by  ${stampOf(identity) ?? 'not known'}`,
    `State       ${ready?.reason ?? 'no operator has looked at it yet'}`,
    ...(held?.status === 'True' ? [`Held        ${held.message}`] : []),
  ];
}

function declared({ spec }: AutomationIdentity): string[] {
  const permissions = spec.permissions ?? [];
  if (permissions.length === 0) return ['nothing'];
  return permissions.flatMap((permission) =>
    rulesOf([permission]).map((rule) => `${textOf(rule)}: ${permission.reason}`),
  );
}

function besides({ identity, beyond }: ReviewFacts): string[] {
  if (beyond === undefined) {
    const condition = conditionOf(identity.status?.conditions, 'ExcessPermissions');
    return [
      condition?.message ?? 'not known: no operator has looked at it yet',
      'You may not list the roles and bindings of the cluster, so this is what the operator says.',
    ];
  }
  if (beyond.length === 0) return ['nothing but what everybody may'];
  return beyond.flatMap(({ binding, role, through, namespace, rules }) => {
    const of = [binding.namespace, binding.name].filter((part) => part !== undefined).join('/');
    const group = through.includes('/') ? '' : `, by the group ${through}`;
    const where = namespace === undefined ? 'everywhere' : `in ${namespace}`;
    return [
      `${binding.kind} ${of} (${role.kind} ${role.name}) ${where}${group}:`,
      ...rules.map((rule) => `  ${textOf(rule)}`),
    ];
  });
}

function credentials({ identity: { spec, status }, now }: ReviewFacts): string[] {
  const entries = spec.secrets ?? [];
  if (entries.length === 0) return ['none'];
  return entries.map(({ name, type, rotation }) => {
    const found = status?.secrets?.find((one) => one.name === name);
    const every = rotation?.every ?? rotation?.schedule;
    const facts = [
      `changed ${timeAndAge(found?.lastRotationTime, now)}`,
      every === undefined ? 'not rotated by itself' : `rotation ${every}`,
      ...(found?.nextRotationTime === undefined ? [] : [`next ${found.nextRotationTime}`]),
      ...(found?.owner === undefined ? [] : [`kept by ${found.owner}`]),
    ];
    return `${name} (${type}, Secret ${found?.secretName ?? 'not there yet'}): ${facts.join(', ')}`;
  });
}

function tokens({ spec, status }: AutomationIdentity): string[] {
  const entries = spec.tokens ?? [];
  if (entries.length === 0) return ['none'];
  return entries.map(({ name, audience, allowKubernetesAPI }) => {
    const found = status?.tokens?.find((one) => one.name === name);
    const api = allowKubernetesAPI === true ? ', good for the Kubernetes API' : '';
    return `${name} for ${audience}${api}: expires ${found?.expirationTime ?? 'never: none is published'}`;
  });
}

function egress(workflow: Workflow | undefined): string[] {
  if (workflow === undefined) return ['no Workflow of this name'];
  const entries = workflow.spec.egress ?? [];
  return entries.length === 0 ? ['nothing but DNS'] : entries.map(destination);
}

function destination({
  cidr,
  except = [],
  host,
  namespace,
  peer: named,
  podSelector,
  ports,
  reason,
}: EgressEntry): string {
  const labels = Object.entries(podSelector?.matchLabels ?? {}).map(([k, v]) => `${k}=${v}`);
  const peer = cidr ?? host ?? named ?? `pods of namespace ${namespace ?? ''}`;
  const narrowed = [
    ...(except.length > 0 ? [`except ${except.join(', ')}`] : []),
    ...(labels.length > 0 ? [`with ${labels.join(', ')}`] : []),
  ];
  const shown =
    ports === undefined
      ? 'all ports'
      : ports
          .map(({ port, endPort, protocol }) =>
            endPort === undefined ? `${protocol} ${port}` : `${protocol} ${port}-${endPort}`,
          )
          .join(', ');
  return `${[peer, ...narrowed].join(' ')}, ${shown}: ${reason}`;
}

/** As far as anybody in Kubernetes can know it; what isn't known is said, too. */
function lastUse({ pods, now }: ReviewFacts): string[] {
  return [
    `Pods         ${podsText(pods, now)}`,
    "Rights       not known here: the API server's audit log knows when one was last used",
    'Credentials  not known here: the system that a value opens knows who came with it',
  ];
}

function podsText(pods: readonly Pod[] | undefined, now: number): string {
  if (pods === undefined) return 'not known: you may not list pods here';
  const latest = pods
    .flatMap(({ metadata }) => metadata.creationTimestamp ?? [])
    .toSorted()
    .at(-1);
  if (latest === undefined) return 'none is there: when one last ran is not known here';
  const running = pods.filter(({ status }) => status?.phase === 'Running').length;
  return `${running} run as it now, the latest of ${pods.length} was created ${timeAndAge(latest, now)}`;
}

/** Reviews that are shown. */
const maxReviews = 5;

function reviews({ identity, reviews: all, now }: ReviewFacts): string[] {
  const condition = conditionOf(identity.status?.conditions, 'ReviewOverdue');
  const latest = all
    .toSorted((a, b) =>
      (b.metadata.creationTimestamp ?? '').localeCompare(a.metadata.creationTimestamp ?? ''),
    )
    .slice(0, maxReviews);
  return [
    condition?.message ?? 'No reviews are asked for.',
    ...latest.map(
      ({ metadata, spec }) =>
        `${timeAndAge(metadata.creationTimestamp, now)}: ${spec.decision} by ${spec.reviewer ?? 'somebody'}: ${spec.reason}`,
    ),
    ...(all.length > latest.length ? [`and ${all.length - latest.length} older ones`] : []),
  ];
}

function timeAndAge(time: string | undefined, now: number): string {
  const since = Date.parse(time ?? '');
  if (time === undefined || Number.isNaN(since)) return 'not known';
  const seconds = Math.max(0, Math.floor((now - since) / 1000));
  const days = Math.floor(seconds / 86_400);
  const age =
    days > 0
      ? `${days} days`
      : formatDuration((seconds < 60 ? seconds : seconds - (seconds % 60)) * 1000);
  return `${time} (${age} ago)`;
}

/** The rule whole: a reviewer has to see all of it. */
function textOf(rule: PolicyRule): string {
  return ruleText(rule, (items) => items.join(', '));
}
