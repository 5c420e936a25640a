import type { KillSwitch } from '../api/kill-switch.ts';
import { API_VERSION } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import type { Drift } from '../runtime/drift.ts';
import { canonicalJson, sha256, type Json } from './canonical.ts';
import { draftOf, incidentOf, referenceTo, type Place } from './drafts.ts';
import { toldScope, type Fact, type Observation } from './observation.ts';

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

/**
 * An object that somebody changed and the operator repaired. No object keeps that; the same change
 * again within a while is one record.
 *
 * @param now milliseconds since the epoch
 */
export function driftFact(drift: Drift, place: Place, now: number): Observation {
  const { resource, object, manager, changedAt, before, after } = drift;
  const says: Json = [object.metadata.uid ?? '', manager, before, Math.floor(now / repeatMs)];
  return {
    facts: [
      {
        subject: `${toldScope}${sha256(canonicalJson(says)).slice(0, 16)}/`,
        state: 'DriftRepaired',
        draft: () =>
          draftOf(place, {
            action: 'DriftRepaired',
            message: driftMessage(drift),
            objects: [referenceTo(resource, object)],
            details: {
              changedBy: manager,
              before,
              after,
              ...(changedAt !== undefined && { changedAt }),
            },
          }),
      },
    ],
  };
}

/** For people. */
export function driftMessage({ resource: { kind }, object, manager }: Drift): string {
  return `${kind} ${object.metadata.name} was changed by ${manager}, and is again as it was planned.`;
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
