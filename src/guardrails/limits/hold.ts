import type { Breach } from '../../api/limits.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import { annotation, label, MANAGED_BY } from '../../api/names.ts';
import type { Workflow } from '../../api/workflow.ts';
import { isHeld, sentenceOf } from './findings.ts';

/** Who acknowledged, as admission stamped it, and why. */
export interface Acknowledgement {
  by: string;
  reason: string;
}

/**
 * The acknowledgement that nobody has taken note of yet. One without the stamp (admission wasn't in
 * force) is nobody's, and ends nothing.
 */
export function acknowledgementOf({ metadata, status }: Workflow): Acknowledgement | undefined {
  const { annotations = {} } = metadata;
  const reason = annotations[annotation.acknowledge];
  const by = annotations[annotation.acknowledgedBy];
  if (reason === undefined || by === undefined) return undefined;
  const noted = status?.runs?.acknowledged;
  return noted?.by === by && noted.reason === reason ? undefined : { by, reason };
}

/**
 * What the metadata of a Workflow has to become, as its stored status has it: the marks by which
 * admission holds it, without an acknowledgement that was taken note of. It must go before the next
 * breach is counted, which it would end. `undefined` where nothing is to be written.
 */
export function marksPatch(workflow: Workflow): object | undefined {
  const { metadata, status } = workflow;
  const { labels = {}, annotations = {} } = metadata;
  const { breaches = [] } = status?.runs ?? {};
  const holds = isHeld(workflow, status?.runs);
  const isNoted =
    annotations[annotation.acknowledge] !== undefined &&
    (breaches.length === 0 ||
      (annotations[annotation.acknowledgedBy] !== undefined &&
        acknowledgementOf(workflow) === undefined));
  const wanted = {
    labels: { [label.limitBreached]: holds ? 'true' : undefined },
    annotations: {
      [annotation.limitBreach]: holds ? sentenceOf(breaches) : undefined,
      ...(isNoted && {
        [annotation.acknowledge]: undefined,
        [annotation.acknowledgedBy]: undefined,
      }),
    },
  };
  const patch = {
    labels: differenceOf(labels, wanted.labels),
    annotations: differenceOf(annotations, wanted.annotations),
  };
  if (Object.keys(patch.labels).length + Object.keys(patch.annotations).length === 0) {
    return undefined;
  }
  const { uid, resourceVersion } = metadata;
  return { metadata: { uid, resourceVersion, ...patch } };
}

function differenceOf(
  current: Readonly<Record<string, string>>,
  wanted: Readonly<Record<string, string | undefined>>,
): Record<string, string | null> {
  return Object.fromEntries(
    Object.entries(wanted).flatMap(([key, value]) =>
      current[key] === value ? [] : [[key, value ?? null]],
    ),
  );
}

/** The kill switch that a breach engages, in the operator's name. */
export function killSwitchFor({ metadata }: Workflow, breaches: readonly Breach[]): KillSwitch {
  const { name, namespace = '' } = metadata;
  return {
    metadata: { name, namespace },
    spec: { workflow: name, reason: sentenceOf(breaches), engagedBy: MANAGED_BY },
  };
}
