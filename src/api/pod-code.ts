import { isDeepStrictEqual } from 'node:util';
import { digestOf } from './digest.ts';

/** A pod, or the template of one, whatever stands in it. */
export interface PodLike {
  metadata?: {
    /** Of a pod: what a StatefulSet's claims are named after. */
    name?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
  spec?: object;
}

type Fields = Readonly<Record<string, unknown>>;

/**
 * Digest of what a pod runs: the whole of its spec, without what only says where it runs, and
 * without what the API server and the controllers of workloads add to a template. So a pod has the
 * digest of the template that it was made from, and any other one where an image, a command, the
 * environment, a volume or a security context differs; what is unknown to us counts as a
 * difference. Total.
 *
 * @param claimTemplates names of a StatefulSet's `volumeClaimTemplates`: each of its pods gets a
 *   volume of that name
 */
export function podCodeDigest(pod: PodLike, claimTemplates: readonly string[] = []): string {
  const { metadata = {} } = pod;
  const spec = fieldsOf(pod.spec);
  const tokenVolumes = listOf(spec['volumes']).filter(isInjectedToken).map(nameOf);
  const container = (value: unknown): Fields => {
    const fields = fieldsOf(value);
    return without(
      {
        ...fields,
        env: listOf(fields['env'])
          .filter((one) => !isCompletionIndex(one))
          .map((one) => (readsMetadata(one, ['valueFrom']) ? resolved(one, metadata) : one)),
        volumeMounts: listOf(fields['volumeMounts']).filter(
          (mount) =>
            !(tokenVolumes.includes(nameOf(mount)) && fieldsOf(mount)['mountPath'] === tokenPath),
        ),
      },
      perContainer,
    );
  };
  return digestOf({
    enableServiceLinks: true,
    ...without(spec, perPod),
    ...Object.fromEntries(
      ['containers', 'initContainers', 'ephemeralContainers'].map((field) => [
        field,
        listOf(spec[field]).map(container),
      ]),
    ),
    volumes: byName([
      ...listOf(spec['volumes'])
        .filter((volume) => !isInjectedToken(volume) && !claimTemplates.includes(nameOf(volume)))
        .map((volume) =>
          readsMetadata(volume, ['downwardAPI', 'projected'])
            ? resolved(volume, metadata)
            : ofStatefulSet(volume, metadata.name),
        ),
      ...claimTemplates.map((name) => ofStatefulSet(claimVolume(name, ''), undefined)),
    ]),
  });
}

/**
 * Where a pod runs, and how soon; what admission plug-ins default there; the name by which a
 * controller makes it reachable.
 */
const perPod: ReadonlySet<string> = new Set([
  'affinity',
  'hostname',
  'imagePullSecrets',
  'nodeName',
  'nodeSelector',
  'overhead',
  'preemptionPolicy',
  'priority',
  'priorityClassName',
  'schedulingGates',
  // The older name of `serviceAccountName`, which the API server keeps equal.
  'serviceAccount',
  'subdomain',
  'tolerations',
  'topologySpreadConstraints',
]);

/** Changed by AlwaysPullImages and by LimitRanger. */
const perContainer: ReadonlySet<string> = new Set(['imagePullPolicy', 'resources']);

const tokenPath = '/var/run/secrets/kubernetes.io/serviceaccount';

/** What the API server mounts into a pod that asks for a token, and nothing that looks like it. */
const tokenSources: unknown = [
  { serviceAccountToken: { expirationSeconds: 3607, path: 'token' } },
  { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
  {
    downwardAPI: {
      items: [
        { path: 'namespace', fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } },
      ],
    },
  },
];

function isInjectedToken(volume: unknown): boolean {
  return (
    nameOf(volume).startsWith('kube-api-access-') &&
    isDeepStrictEqual(fieldsOf(fieldsOf(volume)['projected'])['sources'], tokenSources)
  );
}

/** What the Job controller adds to the containers of an indexed Job. */
function isCompletionIndex(variable: unknown): boolean {
  const { fieldPath } = fieldsOf(fieldsOf(fieldsOf(variable)['valueFrom'])['fieldRef']);
  return (
    nameOf(variable) === 'JOB_COMPLETION_INDEX' &&
    /^metadata\.(labels|annotations)\['batch\.kubernetes\.io\/job-completion-index'\]$/.test(
      String(fieldPath),
    )
  );
}

/** A claim that is named after its pod, as it is in all pods of a StatefulSet. */
function ofStatefulSet(volume: unknown, podName: string | undefined): unknown {
  const claimName = fieldsOf(fieldsOf(volume)['persistentVolumeClaim'])['claimName'];
  const name = nameOf(volume);
  return claimName === `${name}-${podName ?? ''}` ? claimVolume(name, '$(POD)') : volume;
}

function claimVolume(name: string, pod: string): object {
  return { name, persistentVolumeClaim: { claimName: `${name}-${pod}` } };
}

/**
 * A label or an annotation can be a command: whatever the spec takes from one is part of it. Those
 * that controllers write differ from pod to pod.
 */
function resolved(value: unknown, metadata: NonNullable<PodLike['metadata']>): unknown {
  if (Array.isArray(value)) return value.map((item) => resolved(item, metadata));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([key, item]): [string, unknown] => {
    const [, from, name = ''] =
      (key === 'fieldPath' && /^metadata\.(labels|annotations)\['(.*)'\]$/.exec(String(item))) ||
      [];
    if (from === undefined || isControllers(name)) return [key, resolved(item, metadata)];
    const values = from === 'labels' ? metadata.labels : metadata.annotations;
    return [key, { path: item, value: values?.[name] ?? null }];
  });
  return Object.fromEntries(entries);
}

/** Whether it can: most can't, and needn't be copied. */
function readsMetadata(value: unknown, fields: readonly string[]): boolean {
  return fields.some((field) => fieldsOf(value)[field] !== undefined);
}

function isControllers(key: string): boolean {
  return (
    /^([a-z0-9.-]+\.)?(kubernetes|k8s)\.io\//.test(key) ||
    ['pod-template-hash', 'pod-template-generation', 'controller-revision-hash'].includes(key) ||
    ['controller-uid', 'job-name'].includes(key)
  );
}

function without(fields: Fields, names: ReadonlySet<string>): Fields {
  return Object.fromEntries(
    Object.entries(fields).filter(
      ([name, value]) => !names.has(name) && value !== null && !isEmpty(value),
    ),
  );
}

/** Absent and empty are the same to the API server. */
function isEmpty(value: unknown): boolean {
  if (Array.isArray(value)) return value.length === 0;
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0;
}

function byName(volumes: readonly unknown[]): unknown[] {
  return volumes.toSorted((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));
}

function nameOf(value: unknown): string {
  const { name } = fieldsOf(value);
  return typeof name === 'string' ? name : '';
}

function fieldsOf(value: unknown): Fields {
  return isFields(value) ? value : {};
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
