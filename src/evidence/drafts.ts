import { digestOf } from '../api/digest.ts';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import { MANAGED_BY } from '../api/names.ts';
import type { Condition, KubeObject } from '../api/objects.ts';
import { apiVersionOf, type Resource } from '../api/resources.ts';
import type { Workflow } from '../api/workflow.ts';
import type { Action } from './actions.ts';
import type { Fact } from './observation.ts';
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
  /** Name of the AutomationIdentity. */
  identity?: string | undefined;
  /** The kill that stands, as {@link incidentOf} has it. */
  incident?: string | undefined;
}

/** The operator itself. */
export const operator: Actor = { name: MANAGED_BY, basis: 'operator' };
/** Nobody says who it was. */
export const unknown: Actor = { name: 'unknown', basis: 'unknown' };

/** Correlates a version of a Workflow with what it ran and what became of it. */
function changeOf({ metadata }: KubeObject): string {
  return `${(metadata.uid ?? '').slice(0, 8)}-g${metadata.generation ?? 0}`;
}

/** Correlates everything of one kill. */
export function incidentOf({ metadata }: KubeObject): string {
  return (metadata.uid ?? '').slice(0, 8);
}

/** The version of an object that was seen. */
export function referenceTo(of: Resource, { metadata }: KubeObject): RecordObject {
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

/** What a record says by itself. */
export interface DraftInit extends Partial<RecordDraft> {
  action: Action;
}

/** A record of what the operator did, where nothing else is said. */
export function draftOf(
  { environment, identity, change, incident }: Place,
  init: DraftInit,
): RecordDraft {
  return {
    outcome: 'Succeeded',
    actor: operator,
    ...(environment !== undefined && { environment }),
    ...(identity !== undefined && { identity }),
    ...(change !== undefined && { change }),
    ...(incident !== undefined && { incident }),
    ...init,
  };
}

/** What a condition is called in a record. */
export interface Words {
  /** Action where the status becomes True. */
  on: Action;
  /** Where it was True, and isn't any more. */
  off: Action;
}

/**
 * A condition that came or went.
 *
 * @param isFinding of what is bad, another message is another finding
 */
export function conditionFact(
  subject: string,
  { status, reason, message, lastTransitionTime }: Condition,
  { on, off }: Words,
  place: Place,
  {
    objects,
    isFinding = false,
    endedBy,
  }: {
    objects: readonly RecordObject[];
    isFinding?: boolean;
    /** Who saw to it that it isn't True any more, and why. */
    endedBy?: { actor: Actor; message: string } | undefined;
  },
): Fact {
  const isOn = status === 'True';
  return {
    subject,
    state:
      `${status} ${lastTransitionTime} ${isOn && isFinding ? digestOf([reason, message]).slice(0, 16) : ''}`.trim(),
    draft: (before) =>
      isOn || before?.startsWith('True') === true
        ? draftOf(place, {
            action: isOn ? on : off,
            outcome: 'Observed',
            happened: lastTransitionTime,
            reason,
            message,
            objects,
            ...(!isOn && endedBy),
          })
        : undefined,
  };
}

/** What is correlated with the Workflow's version. */
export function placeOf(
  environment: string | undefined,
  workflow: Workflow | undefined,
  killSwitch: KillSwitch | undefined,
  identity?: AutomationIdentity,
): Place {
  return {
    environment,
    identity: identity?.metadata.name,
    change: workflow && changeOf(workflow),
    incident: killSwitch && incidentOf(killSwitch),
  };
}
