import { describe, expect, it } from 'vitest';
import { annotation } from '../../api/names.ts';
import type { KubeObject, Pod } from '../../api/objects.ts';
import { projectPod } from '../kill-switch/pods.ts';
import { holdouts, volumeSyncMs } from './convergence.ts';

const rotatedAt = Date.parse('2026-05-01T12:00:00.500Z');
const secretName = 'aid.poster.erp';

const env = { env: [{ name: 'P', valueFrom: { secretKeyRef: { name: secretName, key: 'p' } } }] };
const envFrom = { envFrom: [{ secretRef: { name: secretName } }] };
const secretVolume = { name: 'v', secret: { secretName } };
const projectedVolume = { name: 'v', projected: { sources: [{ secret: { name: secretName } }] } };
const mounted = { volumeMounts: [{ name: 'v', mountPath: '/v' }] };
const bySubPath = { volumeMounts: [{ name: 'v', mountPath: '/v', subPath: 'password' }] };
const byExpression = { volumeMounts: [{ name: 'v', mountPath: '/v', subPathExpr: '$(P)' }] };

function pod(
  spec: object,
  { status = {}, ...metadata }: { status?: object; [field: string]: unknown } = {},
): Pod {
  return projectPod({
    metadata: { name: 'poster-1', namespace: 'billing', ...metadata },
    spec: { serviceAccountName: 'poster', ...spec },
    status: { phase: 'Running', startTime: '2026-05-01T11:00:00Z', ...status },
  } as KubeObject);
}

function isHoldout(one: Pod, after: number): boolean {
  return holdouts([one], secretName, rotatedAt, rotatedAt + after).length > 0;
}

describe('holdouts', () => {
  it.each<{ what: string; spec: object; forEver: boolean }>([
    { what: 'the environment', spec: { containers: [env] }, forEver: true },
    { what: 'all of the environment', spec: { containers: [envFrom] }, forEver: true },
    { what: 'an init container', spec: { initContainers: [env] }, forEver: true },
    { what: 'an ephemeral container', spec: { ephemeralContainers: [env] }, forEver: true },
    {
      what: 'a volume',
      spec: { containers: [mounted], volumes: [secretVolume] },
      forEver: false,
    },
    {
      what: 'a projected volume',
      spec: { containers: [mounted], volumes: [projectedVolume] },
      forEver: false,
    },
    {
      what: 'a subPath of a volume',
      spec: { containers: [bySubPath], volumes: [secretVolume] },
      forEver: true,
    },
    {
      what: 'a subPath by expression',
      spec: { containers: [byExpression], volumes: [projectedVolume] },
      forEver: true,
    },
    {
      what: 'a volume and the environment',
      spec: { containers: [{ ...mounted, ...env }], volumes: [secretVolume] },
      forEver: true,
    },
    {
      what: 'a volume of a driver',
      spec: { volumes: [{ name: 'v', csi: { nodePublishSecretRef: { name: secretName } } }] },
      forEver: true,
    },
  ])('a pod that has it in $what, until it follows: $forEver', ({ spec, forEver }) => {
    expect(isHoldout(pod(spec), volumeSyncMs - 1)).toBe(true);
    expect(isHoldout(pod(spec), volumeSyncMs)).toBe(forEver);
  });

  it.each<[string, Parameters<typeof pod>[1], boolean]>([
    ['started before', {}, true],
    ['started after', { status: { startTime: '2026-05-01T12:00:01Z' } }, false],
    [
      'started in the same second, who knows when',
      { status: { startTime: '2026-05-01T12:00:00Z' } },
      true,
    ],
    [
      'started in the same second, by the restart',
      {
        status: { startTime: '2026-05-01T12:00:00Z' },
        annotations: { [annotation.restartedAt]: '2026-05-01T12:00:00.500Z' },
      },
      false,
    ],
    [
      'restarted for an earlier rotation',
      { annotations: { [annotation.restartedAt]: '2026-05-01T12:00:00.499Z' } },
      true,
    ],
    ['has not started', { status: { phase: 'Pending', startTime: undefined } }, false],
    ['pulls its image', { status: { phase: 'Pending' } }, true],
    ['has ended', { status: { phase: 'Succeeded' } }, false],
    ['has failed', { status: { phase: 'Failed' } }, false],
    ['is being stopped', { deletionTimestamp: '2026-05-01T13:00:00Z' }, true],
    ['should have stopped', { deletionTimestamp: '2026-05-01T12:30:00Z' }, false],
  ])('a pod that %s', (_what, parts, expected) => {
    expect(isHoldout(pod({ containers: [env] }, parts), 2_700_000)).toBe(expected);
  });

  it('no pod of which nothing of ours is kept', () => {
    const owner = {
      apiVersion: 'apps/v1',
      kind: 'ReplicaSet',
      name: 'r',
      uid: 'r',
      controller: true,
    };
    const other = pod(
      { containers: [{ envFrom: [{ secretRef: { name: 'theirs' } }] }] },
      { ownerReferences: [owner] },
    );
    expect(other).not.toHaveProperty('secrets');
    expect(other.status).toEqual({ phase: 'Running' });
  });
});
