import type { KubeObject } from '../api/objects.ts';
import { workflowSpecSchema, type Workflow, type WorkflowSpec } from '../api/workflow.ts';
import type { Workload } from '../api/workload.ts';
import { namesOnePeer } from '../guardrails/egress/rules.ts';
import { controllerOf } from '../runtime/applier.ts';

/** A target as far as it can be trusted: the object may be older than the schema. */
interface TargetLike {
  kind?: unknown;
  name?: unknown;
  selector?: { matchLabels?: Record<string, string> } | undefined;
}

/**
 * Reads a spec that may be anything, by the schema and by those of its rules without which a field
 * would mean everything instead of something.
 *
 * @returns the spec, or where it stands malformed
 */
export function readSpec({
  spec,
}: Workflow): { spec: WorkflowSpec } | { malformed: readonly string[] } {
  const { success, data, error } = workflowSpecSchema.safeParse(spec);
  const malformed = success
    ? [
        ...data.targets.flatMap((target, index) =>
          isNamedOnce(target) ? [] : [`spec.targets[${index}]`],
        ),
        ...(['egress', 'ingress'] as const).flatMap((direction) =>
          (data[direction] ?? []).flatMap((entry, index) =>
            namesOnePeer(entry) ? [] : [`spec.${direction}[${index}]`],
          ),
        ),
      ]
    : error.issues.map(({ path }) => ['spec', ...path].join('.'));
  if (success && malformed.length === 0) return { spec: data };
  return { malformed: [...new Set(malformed)].slice(0, 5) };
}

function isNamedOnce({ name, selector }: WorkflowSpec['targets'][number]): boolean {
  if (selector === undefined) return name !== undefined;
  return name === undefined && Object.keys(selector.matchLabels).length > 0;
}

/** What the targets of a Workflow come to in its namespace. */
export interface Targets {
  /** Each once, however many targets name it. */
  workloads: readonly Workload[];
  /** Kind and name of those that don't exist. */
  missing: readonly string[];
  /** Runs of the CronJobs among the workloads that haven't ended: their pods have labels of then. */
  runs: readonly Workload[];
  /** Run as the identity and are neither targets nor made by one. */
  untargeted: readonly Workload[];
}

/** @param workloads all of the namespace */
export function resolveTargets(
  { metadata }: Workflow,
  targets: WorkflowSpec['targets'],
  workloads: readonly Workload[],
): Targets {
  const named = new Map(workloads.map((workload) => [idOf(workload), workload]));
  const found = new Map<string, Workload>();
  const missing = new Set<string>();
  for (const target of targets) {
    if (target.name === undefined) {
      for (const workload of workloads) {
        if (isTargetOf(target, workload)) found.set(idOf(workload), workload);
      }
      continue;
    }
    const id = `${target.kind} ${target.name}`;
    const workload = named.get(id);
    if (workload === undefined) missing.add(id);
    else found.set(id, workload);
  }
  const uids = new Set([...found.values()].map((workload) => workload.metadata.uid));
  const isMadeByTarget = (workload: Workload): boolean => {
    const owner = controllerOf(workload);
    return owner !== undefined && uids.has(owner.uid);
  };
  const others = workloads.filter((workload) => !found.has(idOf(workload)) && !workload.finished);
  return {
    workloads: [...found.values()],
    missing: [...missing],
    runs: others.filter(isMadeByTarget),
    untargeted: others.filter(
      (workload) =>
        workload.serviceAccountName === metadata.name && controllerOf(workload) === undefined,
    ),
  };
}

/** Whether a target means this workload; of a target that can't be read, it doesn't. */
export function isTargetOf(target: TargetLike, { kind, metadata }: Workload): boolean {
  if (target.kind !== kind) return false;
  if (target.name !== undefined) return target.name === metadata.name;
  const labels = Object.entries(target.selector?.matchLabels ?? {});
  return labels.length > 0 && labels.every(([key, value]) => metadata.labels?.[key] === value);
}

/** Whether nothing of it runs or will: it is paused, or it has ended. */
export function isStopped({ isPaused, finished }: Workload): boolean {
  return isPaused || finished;
}

/** Kind and name. */
export function idOf({ kind = '', metadata }: KubeObject): string {
  return `${kind} ${metadata.name}`;
}
