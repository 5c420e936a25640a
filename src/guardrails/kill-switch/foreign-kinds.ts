import { z } from 'zod';
import { GROUP } from '../../api/names.ts';
import type { KubeObject } from '../../api/objects.ts';
import { defineResource, type Resource } from '../../api/resources.ts';

/** What a field that pauses can hold; `null` stands for a field that isn't there. */
export type Scalar = string | number | boolean | null;

/**
 * A kind of another project that starts pods, described as data: how to see whose it is, what
 * pauses it, and whether that can be undone. Nothing of it is code, and nothing of it is a user's.
 */
export interface ForeignKind {
  resource: Resource;
  /**
   * Where it says what it runs as, from the root of the object: names of fields, and `[]` for each
   * item of a list. Any that matches makes it the automation's.
   */
  serviceAccounts: readonly string[];
  /** Where it names a workload that runs as the automation: `{kind, name}`; kind as given here. */
  workloads?: readonly { at: string; defaultKind?: string }[];
  /** Fields from the root of the object to the one that pauses it. */
  path: readonly string[];
  paused: Exclude<Scalar, null>;
  /** Its value where the field isn't there. */
  absent: Scalar;
  /** Whether taking the pause away resumes it. */
  restorable: boolean;
  /** Leaves those out of the lists that are known to have ended. */
  labelSelector?: string;
  /** Where it says that it has ended, and with which words; any word where there are none. */
  ended?: { at: string; values?: readonly string[] };
}

const kedaPaused = ['metadata', 'annotations', 'autoscaling.keda.sh/paused'] as const;

/**
 * The kinds that are known. What they do with the field is documented by their projects:
 *
 * - KEDA: `paused` stops the autoscaler where it is; the count is set and put back by ourselves.
 *   `paused-replicas` would have KEDA scale too, and keep scaling after the release. Older versions
 *   pause whatever the value is.
 * - Argo Workflows: `shutdown: Terminate`; with `suspend` set that would silently do nothing, so it
 *   never is.
 * - Argo Rollouts: the count; `paused` stops no pods, and makes edits of the count void.
 * - Tekton: a run that is cancelled is over.
 * - Knative: a Service is stopped by its Deployment, which its autoscaler scales and admission
 *   freezes. Any write to the Service itself would make a new Revision.
 */
export const foreignKinds: readonly ForeignKind[] = [
  {
    resource: defineResource('argoproj.io', 'v1alpha1', 'Rollout', 'rollouts'),
    serviceAccounts: ['spec.template.spec.serviceAccountName'],
    workloads: [{ at: 'spec.workloadRef' }],
    path: ['spec', 'replicas'],
    paused: 0,
    absent: 1,
    restorable: true,
  },
  {
    resource: defineResource('argoproj.io', 'v1alpha1', 'CronWorkflow', 'cronworkflows'),
    serviceAccounts: [
      'spec.workflowSpec.serviceAccountName',
      'spec.workflowSpec.templates[].serviceAccountName',
    ],
    path: ['spec', 'suspend'],
    paused: true,
    absent: false,
    restorable: true,
  },
  {
    resource: defineResource('argoproj.io', 'v1alpha1', 'Workflow', 'workflows'),
    serviceAccounts: [
      'spec.serviceAccountName',
      'spec.templates[].serviceAccountName',
      'status.storedWorkflowTemplateSpec.serviceAccountName',
    ],
    path: ['spec', 'shutdown'],
    paused: 'Terminate',
    absent: null,
    restorable: false,
    labelSelector: 'workflows.argoproj.io/completed!=true',
    ended: { at: 'status.phase', values: ['Succeeded', 'Failed', 'Error'] },
  },
  {
    resource: defineResource('keda.sh', 'v1alpha1', 'ScaledObject', 'scaledobjects'),
    serviceAccounts: [],
    workloads: [{ at: 'spec.scaleTargetRef', defaultKind: 'Deployment' }],
    path: kedaPaused,
    paused: 'true',
    absent: null,
    restorable: true,
  },
  {
    resource: defineResource('keda.sh', 'v1alpha1', 'ScaledJob', 'scaledjobs'),
    serviceAccounts: ['spec.jobTargetRef.template.spec.serviceAccountName'],
    path: kedaPaused,
    paused: 'true',
    absent: null,
    restorable: true,
  },
  {
    resource: defineResource('tekton.dev', 'v1', 'PipelineRun', 'pipelineruns'),
    serviceAccounts: [
      'spec.taskRunTemplate.serviceAccountName',
      'spec.taskRunSpecs[].serviceAccountName',
    ],
    path: ['spec', 'status'],
    paused: 'Cancelled',
    absent: null,
    restorable: false,
    ended: { at: 'status.completionTime' },
  },
  {
    resource: defineResource('tekton.dev', 'v1', 'TaskRun', 'taskruns'),
    serviceAccounts: ['spec.serviceAccountName'],
    path: ['spec', 'status'],
    paused: 'TaskRunCancelled',
    absent: null,
    restorable: false,
    ended: { at: 'status.completionTime' },
  },
];

const fieldName = '[A-Za-z][A-Za-z0-9_-]{0,62}';
const label = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

const path = (pattern: string, message: string) =>
  z.string().max(512).regex(new RegExp(pattern), message);

/** Groups whose kinds are known already, or decide over others: never the catalogue's to pause. */
const refusedGroups = new Set(['apps', 'batch', GROUP]);

function isForeignGroup(group: string): boolean {
  return group.includes('.') && !refusedGroups.has(group) && !group.endsWith('.k8s.io');
}

const catalogueEntry = z
  .strictObject({
    group: z
      .string()
      .max(253)
      .regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/, 'must be an API group')
      .refine(isForeignGroup, 'must be the API group of another project, such as example.com'),
    version: z.string().regex(label, 'must be a version, such as v1'),
    kind: z.string().regex(/^[A-Z][A-Za-z0-9]{0,62}$/, 'must be a kind, such as Robot'),
    plural: z.string().regex(label, 'must be the plural of the kind, such as robots'),
    serviceAccountPath: path(
      `^spec(\\.${fieldName}(\\[\\])?){1,16}$`,
      'must be names of fields joined by dots, such as spec.template.spec.serviceAccountName',
    ),
    path: path(
      `^spec(\\.${fieldName}){1,16}$`,
      'must be names of fields joined by dots, such as spec.suspend',
    ),
    pausedValue: z.union([z.string().max(256), z.int(), z.boolean()]),
    restorable: z.boolean().default(true),
  })
  .transform(({ group, version, kind, plural, serviceAccountPath, ...entry }): ForeignKind => ({
    resource: defineResource(group, version, kind, plural),
    serviceAccounts: [serviceAccountPath],
    path: entry.path.split('.'),
    paused: entry.pausedValue,
    absent: null,
    restorable: entry.restorable,
  }));

/** The administrator's own kinds: a list, each with the field under `spec` that pauses it. */
export const catalogueSchema = z
  .array(catalogueEntry)
  .max(32)
  .transform((kinds, context) => {
    const seen = new Set(foreignKinds.map(idOf));
    for (const [index, kind] of kinds.entries()) {
      if (seen.has(idOf(kind))) {
        context.addIssue({ code: 'custom', path: [index], message: 'is described already' });
      }
      seen.add(idOf(kind));
    }
    return kinds;
  });

function idOf({ resource: { group, plural } }: ForeignKind): string {
  return `${plural}.${group}`;
}

/** What an object runs as or works on, as far as a kill switch needs to know. */
export interface Scope {
  /** Whether the kill switch stops this ServiceAccount. */
  covers(serviceAccountName: string): boolean;
  /** Whether a workload of that kind and name is one of those that it stops. */
  isStopped(kind: string, name: string): boolean;
}

export function isInScope(
  { serviceAccounts, workloads = [] }: ForeignKind,
  object: KubeObject,
  scope: Scope,
): boolean {
  const named = serviceAccounts.flatMap((at) => valuesAt(object, at));
  const runsAs = named.length === 0 && serviceAccounts.length > 0 ? ['default'] : named;
  if (runsAs.some((name) => typeof name === 'string' && scope.covers(name))) return true;
  return workloads.some(({ at, defaultKind }) =>
    valuesAt(object, at).some((reference) => {
      const kind = fieldOf(reference, 'kind') ?? defaultKind;
      const name = fieldOf(reference, 'name');
      return typeof kind === 'string' && typeof name === 'string' && scope.isStopped(kind, name);
    }),
  );
}

/** Whether it has ended, or is about to go: nothing of it starts any more. */
export function isOver({ ended }: ForeignKind, object: KubeObject): boolean {
  if (object.metadata.deletionTimestamp !== undefined) return true;
  if (ended === undefined) return false;
  const [word] = valuesAt(object, ended.at);
  return typeof word === 'string' && (ended.values?.includes(word) ?? word !== '');
}

/** Value of the field that pauses it; `undefined` where that isn't a scalar. */
export function pauseValueOf(
  { path: fields, absent }: ForeignKind,
  object: KubeObject,
): Scalar | undefined {
  const value: unknown = fields.reduce<unknown>(fieldOf, object);
  if (value === undefined || value === null) return absent;
  return isScalar(value) ? value : undefined;
}

/** What the field holds, for a restore that leaves nothing behind; `null` where it isn't there. */
export function storedValueOf(kind: ForeignKind, object: KubeObject): Scalar | undefined {
  return pauseValueOf({ ...kind, absent: null }, object);
}

function isScalar(value: unknown): value is Scalar {
  return value === null || ['string', 'number', 'boolean'].includes(typeof value);
}

/** Everything that stands at a path with `[]` for each item; of what isn't there, nothing. */
function valuesAt(object: unknown, at: string): unknown[] {
  return at.split('.').reduce<unknown[]>(
    (values, segment) => {
      const name = segment.replace('[]', '');
      const found = values.map((value) => fieldOf(value, name)).filter((value) => value != null);
      return segment === name ? found : found.flatMap((item) => (Array.isArray(item) ? item : []));
    },
    [object],
  );
}

function fieldOf(object: unknown, name: string): unknown {
  if (typeof object !== 'object' || object === null || !Object.hasOwn(object, name)) {
    return undefined;
  }
  return Reflect.get(object, name);
}

const maxValueLength = 1024;

/** The text that keeps a value for the release; `undefined` where it can't be kept. */
export function keptText(value: Scalar | undefined): string | undefined {
  if (value === undefined) return undefined;
  const text = JSON.stringify(value);
  return text.length <= maxValueLength ? text : undefined;
}

/** Reads what {@link keptText} wrote, or anybody; `undefined` where that is no scalar. */
export function keptValue(text: string): Scalar | undefined {
  if (text.length > maxValueLength) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    return isScalar(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
