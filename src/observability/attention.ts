import { conditionOf, isTrue } from '../api/conditions.ts';
import type { Hold } from '../api/holds.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import { PROBE_NAMESPACE } from '../api/names.ts';
import { keyOf, type Condition, type KubeObject } from '../api/objects.ts';
import type { Owner } from '../api/owner.ts';

/** An object that somebody should look at, and since when. */
export interface Attention {
  kind: 'Workflow' | 'AutomationIdentity' | 'KillSwitch';
  /** `namespace/name`. */
  automation: string;
  /** Type of the condition. */
  condition: string;
  /** Reason of the condition. */
  reason: string;
  /** Of the owner; empty where nobody says. */
  team: string;
  /** Of the owner; empty where nobody says. */
  escalation: string;
  /** Milliseconds since the epoch. */
  since: number;
}

interface Owned extends KubeObject {
  spec?: { owner?: Owner | undefined };
  status?: {
    conditions?: readonly Condition[] | undefined;
    holds?: readonly Hold[] | undefined;
  };
}

/** The caches that are looked through. */
export interface AttentionSources {
  workflows: () => Iterable<Owned>;
  identities: () => Iterable<Owned>;
  killSwitches: () => Iterable<KillSwitch>;
}

/** Conditions that are bad when they are true, by kind. */
const badWhenTrue = {
  Workflow: [
    'Held',
    'EgressWidened',
    'LimitBreached',
    'SecretInSpec',
    'PolicyViolation',
    'DutiesOverlap',
  ],
  AutomationIdentity: [
    'Held',
    'RotationOverdue',
    'ExcessPermissions',
    'ReviewOverdue',
    'PolicyViolation',
  ],
  KillSwitch: ['Contested'],
} as const;

/** Why `Ready` is false without anything being wrong, or where another condition says it. */
const expectedReasons = new Set(['KillSwitchEngaged', 'Provisioning', 'Releasing']);

/** What somebody should look at, those that have waited longest first. */
export function attentionOf(sources: AttentionSources): Attention[] {
  const owners = new Map<string, Owner | undefined>();
  const found: Attention[] = [];
  for (const [kind, objects] of [
    ['AutomationIdentity', sources.identities()],
    ['Workflow', sources.workflows()],
  ] as const) {
    for (const object of objects) {
      const { spec, metadata } = object;
      if (metadata.namespace === PROBE_NAMESPACE) continue;
      // A Workflow's owner counts more than its identity's: it is what people look at.
      if (spec?.owner !== undefined) owners.set(keyOf(object), spec.owner);
      for (const condition of badOf(kind, object)) {
        found.push(entryOf(kind, object, condition, spec?.owner));
      }
    }
  }
  for (const killSwitch of sources.killSwitches()) {
    if (killSwitch.metadata.namespace === PROBE_NAMESPACE) continue;
    const owner = owners.get(keyOf(killSwitch));
    for (const condition of [...badOf('KillSwitch', killSwitch), ...rungsOf(killSwitch)]) {
      found.push(entryOf('KillSwitch', killSwitch, condition, owner));
    }
  }
  return found.toSorted((a, b) => a.since - b.since);
}

type Bad = Pick<Condition, 'type' | 'reason' | 'lastTransitionTime'>;

function badOf(kind: Attention['kind'], { status }: Pick<Owned, 'status'>): Bad[] {
  const conditions = status?.conditions;
  const bad: Bad[] = badWhenTrue[kind].flatMap((type) => {
    const condition = conditionOf(conditions, type);
    if (condition?.status !== 'True') return [];
    return type === 'Held' ? holdsOf(condition, status?.holds) : [condition];
  });
  if (kind === 'KillSwitch') return bad;
  const ready = conditionOf(conditions, 'Ready');
  const isHeld = isTrue(conditions, 'Held');
  const isWrong = ready?.status === 'False' && !isHeld && !expectedReasons.has(ready.reason);
  return isWrong ? [...bad, ready] : bad;
}

/** Each hold since it began; whoever acknowledged one looks at it already. */
function holdsOf(held: Bad, holds: readonly Hold[] | undefined): Bad[] {
  if (holds === undefined) return [held];
  return holds
    .filter(({ acknowledged }) => acknowledged === undefined)
    .map(({ reason, since }) => ({ type: 'Held', reason, lastTransitionTime: since }));
}

/** What a kill or a release hasn't reached, with the time at which it was asked for. */
function rungsOf({ metadata, status }: KillSwitch): Bad[] {
  const ready = conditionOf(status?.conditions, 'Ready');
  if (ready?.reason === 'Releasing') return [{ ...ready, type: 'Releasing' }];
  const since = metadata.creationTimestamp ?? '';
  return ['Fenced', 'Effective'].flatMap((type) => {
    const condition = conditionOf(status?.conditions, type);
    if (condition === undefined) return [{ type, reason: 'NotYet', lastTransitionTime: since }];
    if (condition.status === 'True') return [];
    // A rung that was reached and lost has waited since then, and not since the kill.
    return [condition];
  });
}

function entryOf(
  kind: Attention['kind'],
  object: KubeObject,
  { type, reason, lastTransitionTime }: Bad,
  owner: Owner | undefined,
): Attention {
  const since = Date.parse(lastTransitionTime);
  return {
    kind,
    automation: keyOf(object),
    condition: type,
    reason,
    team: owner?.team ?? '',
    escalation: owner?.escalation ?? '',
    since: Number.isNaN(since) ? 0 : since,
  };
}
