import { label } from '../../api/names.ts';
import type { LabelSelector } from '../../api/objects.ts';
import type { Workload } from '../../api/workload.ts';

/** On the pods of a Job, with its name; written by the API server (since 1.27, with the prefix). */
const jobNameLabels = ['batch.kubernetes.io/job-name', 'job-name'] as const;

/** What the API server adds to a Job's pod template. The UIDs change when a Job is re-created. */
const generatedLabels: ReadonlySet<string> = new Set([
  ...jobNameLabels,
  'batch.kubernetes.io/controller-uid',
  'controller-uid',
]);

/** Selects the pods that run as an identity, by the label that admission puts on every pod. */
export function identitySelector(name: string): LabelSelector {
  return { matchLabels: { [label.identity]: name } };
}

/**
 * Selects the pods of a workload by labels that its owner chose: its own selector, or the labels in
 * the pod template of a Job or CronJob. A Job without labels of its own
 * is found by its name.
 *
 * @returns in normal form; `undefined` where no selector would select these pods and not others
 */
export function podSelectorOf(workload: Workload): LabelSelector | undefined {
  const selector = workload.podSelector ?? { matchLabels: templateLabelsOf(workload) };
  return namesPods(selector) ? normalSelector(selector) : undefined;
}

/** Whether the owner of a workload gave its pods labels. */
export function hasOwnPodLabels({ podLabels }: Workload): boolean {
  return Object.keys(podLabels).some((key) => !generatedLabels.has(key));
}

function templateLabelsOf(workload: Workload): Record<string, string> {
  const { kind, podLabels } = workload;
  if (hasOwnPodLabels(workload) || kind !== 'Job') {
    return Object.fromEntries(
      Object.entries(podLabels).filter(([key]) => !generatedLabels.has(key)),
    );
  }
  const [jobName] = jobNameLabels.flatMap((key) => {
    const value = podLabels[key];
    return value === undefined ? [] : [[key, value] as const];
  });
  return jobName === undefined ? {} : Object.fromEntries([jobName]);
}

/**
 * Whether a selector says what its pods have, not only what they lack: without anything positive it
 * would select the pods of the whole namespace, or nearly all.
 */
export function namesPods({ matchLabels = {}, matchExpressions = [] }: LabelSelector): boolean {
  return (
    Object.keys(matchLabels).length > 0 ||
    matchExpressions.some(
      ({ operator, values = [] }) =>
        operator === 'Exists' || (operator === 'In' && values.length > 0),
    )
  );
}

/** The same selector, written in the one way that compares. */
export function normalSelector({
  matchLabels = {},
  matchExpressions = [],
}: LabelSelector): LabelSelector {
  const labels = Object.entries(matchLabels).toSorted(([a], [b]) => compare(a, b));
  const expressions = matchExpressions
    .map(({ key, operator, values = [] }) => ({
      key,
      operator,
      ...(values.length > 0 && { values: [...new Set(values)].toSorted(compare) }),
    }))
    .toSorted((a, b) => compare(JSON.stringify(a), JSON.stringify(b)));
  return {
    ...(labels.length > 0 && { matchLabels: Object.fromEntries(labels) }),
    ...(expressions.length > 0 && { matchExpressions: expressions }),
  };
}

/** As a `labelSelector` of a request; for selectors that {@link namesPods}. */
export function selectorText({ matchLabels = {}, matchExpressions = [] }: LabelSelector): string {
  return [
    ...Object.entries(matchLabels).map(([key, value]) => `${key}=${value}`),
    ...matchExpressions.map(({ key, operator, values = [] }) => {
      switch (operator) {
        case 'Exists':
          return key;
        case 'DoesNotExist':
          return `!${key}`;
        default:
          return `${key} ${operator.toLowerCase()} (${values.join(',')})`;
      }
    }),
  ].join(',');
}

/** Whether a selector selects what carries these labels; an operator that is unknown, nothing. */
export function selectsLabels(
  { matchLabels = {}, matchExpressions = [] }: LabelSelector,
  labels: Readonly<Record<string, string>>,
): boolean {
  return (
    Object.entries(matchLabels).every(([key, value]) => labels[key] === value) &&
    matchExpressions.every(({ key, operator, values = [] }) =>
      meets(labels[key], { operator, values, ifUnknown: false }),
    )
  );
}

/**
 * Whether a label's value meets a requirement of a selector.
 *
 * @param ifUnknown the answer for an operator that is unknown
 */
export function meets(
  value: string | undefined,
  {
    operator,
    values,
    ifUnknown,
  }: { operator: string; values: readonly string[]; ifUnknown: boolean },
): boolean {
  switch (operator) {
    case 'In':
      return value !== undefined && values.includes(value);
    case 'NotIn':
      return value === undefined || !values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
    default:
      return ifUnknown;
  }
}

/** By code unit, the same under every locale. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
