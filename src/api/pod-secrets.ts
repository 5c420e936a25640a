import { annotation, secretPrefix } from './names.ts';
import type { KubeObject, PodSecrets } from './objects.ts';
import { referencedSecrets } from './workload.ts';

interface RawPodSpec {
  containers?: RawContainer[];
  initContainers?: RawContainer[];
  ephemeralContainers?: RawContainer[];
  volumes?: {
    name?: string;
    secret?: { secretName?: string };
    projected?: { sources?: { secret?: { name?: string } }[] };
  }[];
}

interface RawContainer {
  volumeMounts?: { name?: string; subPath?: string; subPathExpr?: string }[];
}

/** @returns `undefined` for a pod without any, which is nearly every one of a cluster. Total. */
export function podSecrets(pod: KubeObject): PodSecrets | undefined {
  const { metadata, spec } = pod as KubeObject & { spec?: RawPodSpec };
  const names = referencedSecrets(spec).filter((name) => name.startsWith(secretPrefix));
  if (spec === undefined || names.length === 0) return undefined;
  const { volumes = [], containers = [], initContainers = [], ephemeralContainers = [] } = spec;
  const fixedVolumes = new Set(
    [...containers, ...initContainers, ...ephemeralContainers]
      .flatMap(({ volumeMounts = [] }) => volumeMounts)
      // The kubelet never updates what is mounted so.
      .filter(({ subPath = '', subPathExpr = '' }) => subPath !== '' || subPathExpr !== '')
      .map(({ name }) => name),
  );
  const following = volumes.filter(
    ({ name, secret, projected }) =>
      (secret !== undefined || projected !== undefined) && !fixedVolumes.has(name),
  );
  const elsewhere = new Set(
    referencedSecrets({ ...spec, volumes: volumes.filter((one) => !following.includes(one)) }),
  );
  const restartedAt = metadata.annotations?.[annotation.restartedAt];
  return {
    readOnce: names.filter((name) => elsewhere.has(name)),
    followed: names.filter((name) => !elsewhere.has(name)),
    ...(restartedAt !== undefined && { restartedAt }),
  };
}
