import type { KillSwitch } from '../api/kill-switch.ts';
import { digestOf } from '../api/digest.ts';
import { API_VERSION } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import type { Drift } from '../runtime/drift.ts';
import { canonicalJson, sha256, type Json } from './canonical.ts';
import { draftOf, incidentOf, referenceTo, unknown, type Place } from './drafts.ts';
import type { Action } from './actions.ts';
import { toldScope, type Fact, type Observation } from './observation.ts';

/** What a controller told as an event, and no object keeps. */
export interface Told {
  about: KubeObject;
  reason: string;
  message: string;
}

/** Events that say what no object keeps, and what they are called in a record. */
const toldReasons: ReadonlyMap<string, Action> = new Map<string, Action>([
  ['NotRestored', 'NotRestored'],
  ['NotKept', 'NotKept'],
  ['JobsNotStarted', 'JobsNotStarted'],
  ['ReleaseCancelled', 'ReleaseCancelled'],
  ['PodsStarted', 'GateLifted'],
  // Of a Job, the Job keeps it.
  ['PodApprovalTimedOut', 'GateTimedOut'],
]);

/** A repeat within this time is the same; milliseconds. */
const repeatMs = 600_000;

/** @param now milliseconds since the epoch */
export function toldFact({ about, reason, message }: Told, now: number): Observation | undefined {
  const action = toldReasons.get(reason);
  if (action === undefined || about.kind === undefined) return undefined;
  const says: Json = [about.metadata.uid ?? '', reason, message, Math.floor(now / repeatMs)];
  const { name, namespace, uid } = about.metadata;
  return {
    facts: [
      {
        subject: `${toldScope}${sha256(canonicalJson(says)).slice(0, 16)}/`,
        state: reason,
        draft: () =>
          draftOf(about.kind === 'KillSwitch' ? { incident: incidentOf(about) } : {}, {
            action,
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
  const says: Json = [object.metadata.uid ?? '', manager ?? '', before, Math.floor(now / repeatMs)];
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
              changedBy: manager ?? 'unknown',
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
  const what =
    manager === undefined
      ? 'had something taken away, by whom the API does not keep'
      : `was changed by ${manager}`;
  return `${kind} ${object.metadata.name} ${what}, and is again as it was planned.`;
}

/** Something of the operator itself. */
export function clusterFact(
  subject: string,
  state: string,
  action: Action,
  details: Record<string, string>,
): Observation {
  return { facts: [{ subject, state, draft: () => draftOf({}, { action, details }) }] };
}

/** The version that leads; another one than before was installed in its place. */
export function versionFact(version: string): Observation {
  return {
    facts: [
      {
        subject: 'operator-version',
        state: version,
        draft: (before) =>
          draftOf(
            {},
            {
              action: before === undefined ? 'OperatorInstalled' : 'OperatorUpgraded',
              details: { version, ...(before !== undefined && { from: before }) },
            },
          ),
      },
    ],
  };
}

/**
 * Admission policies, or bindings, of ours: what each says, by digest.
 *
 * @param isComplete those that aren't among them don't stand any more
 */
export function admissionFacts(
  of: Resource,
  objects: readonly (KubeObject & { spec?: unknown })[],
  isComplete: boolean,
): Observation {
  const scope = `admission/${of.kind}/`;
  const facts = objects.map((object): Fact => {
    const { name } = object.metadata;
    return {
      subject: `${scope}${name}/`,
      state: digestOf(object.spec),
      draft: (before) =>
        draftOf(
          {},
          {
            action: before === undefined ? 'PolicyInstalled' : 'PolicyChanged',
            outcome: 'Observed',
            // The API server's audit log knows who it was.
            actor: unknown,
            objects: [referenceTo(of, object)],
            details: { kind: of.kind, name },
          },
        ),
    };
  });
  return {
    facts,
    ...(isComplete && { scope }),
    gone: (subject) =>
      draftOf(
        {},
        {
          action: 'PolicyRemoved',
          outcome: 'Observed',
          actor: unknown,
          details: { kind: of.kind, name: subject.slice(scope.length, -1) },
        },
      ),
  };
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
