import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { podCodeDigest, type PodLike } from './pod-code.ts';

const container = {
  name: 'main',
  image: 'post:1',
  command: ['post'],
  env: [{ name: 'MODE', value: 'fast' }],
  volumeMounts: [{ name: 'config', mountPath: '/config' }],
};
const spec = {
  serviceAccountName: 'poster',
  restartPolicy: 'Always',
  volumes: [{ name: 'config', configMap: { name: 'poster' } }],
  containers: [container],
};
const template: PodLike = { metadata: { labels: { app: 'poster' } }, spec };

function withContainer(fields: object): PodLike {
  return { spec: { ...spec, containers: [{ ...container, ...fields }] } };
}

const tokenVolume = {
  name: 'kube-api-access-x7k2p',
  projected: {
    defaultMode: 420,
    sources: [
      { serviceAccountToken: { expirationSeconds: 3607, path: 'token' } },
      { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
      {
        downwardAPI: {
          items: [
            { path: 'namespace', fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } },
          ],
        },
      },
    ],
  },
};
const tokenMount = {
  name: tokenVolume.name,
  readOnly: true,
  mountPath: '/var/run/secrets/kubernetes.io/serviceaccount',
};

describe('what a pod runs', () => {
  it.each<[string, PodLike]>([
    ['where it runs', { spec: { ...spec, nodeName: 'n', nodeSelector: { a: 'b' }, affinity: {} } }],
    ['its gates', { spec: { ...spec, schedulingGates: [{ name: 'wait' }] } }],
    ['defaults of the API server', { spec: { ...spec, enableServiceLinks: true, priority: 0 } }],
    ['what is empty', { spec: { ...spec, securityContext: {}, initContainers: [] } }],
    [
      'resources and pull policy',
      withContainer({ resources: { limits: {} }, imagePullPolicy: 'X' }),
    ],
    [
      'the index of a Job',
      withContainer({
        env: [
          ...container.env,
          {
            name: 'JOB_COMPLETION_INDEX',
            valueFrom: {
              fieldRef: {
                apiVersion: 'v1',
                fieldPath: "metadata.labels['batch.kubernetes.io/job-completion-index']",
              },
            },
          },
        ],
      }),
    ],
    [
      'the token that the API server mounts',
      {
        spec: {
          ...spec,
          volumes: [tokenVolume, ...spec.volumes],
          containers: [{ ...container, volumeMounts: [...container.volumeMounts, tokenMount] }],
        },
      },
    ],
    ['labels and annotations', { metadata: { labels: { 'pod-template-hash': '1' } }, spec }],
  ])('is the same whatever differs in %s', (_, pod) => {
    expect(podCodeDigest(pod)).toBe(podCodeDigest(template));
  });

  it.each<[string, PodLike]>([
    ['the image', withContainer({ image: 'post:2' })],
    ['the command', withContainer({ command: ['drain'] })],
    ['the arguments', withContainer({ args: ['--all'] })],
    ['the environment', withContainer({ env: [{ name: 'MODE', value: 'slow' }] })],
    ['a lifecycle hook', withContainer({ lifecycle: { postStart: { exec: { command: ['x'] } } } })],
    ['a probe', withContainer({ livenessProbe: { exec: { command: ['x'] } } })],
    ['a mount', withContainer({ volumeMounts: [{ name: 'config', mountPath: '/bin' }] })],
    ['the security context', withContainer({ securityContext: { runAsUser: 0 } })],
    ['a second container', { spec: { ...spec, containers: [container, container] } }],
    ['an init container', { spec: { ...spec, initContainers: [container] } }],
    ['a volume', { spec: { ...spec, volumes: [{ name: 'config', emptyDir: {} }] } }],
    ['the account', { spec: { ...spec, serviceAccountName: 'other' } }],
    ['host aliases', { spec: { ...spec, hostAliases: [{ ip: '1.2.3.4', hostnames: ['erp'] }] } }],
    ['a field that nobody knows yet', { spec: { ...spec, runsAlso: 'this' } }],
    [
      'a volume that only looks like the token',
      {
        spec: {
          ...spec,
          volumes: [
            ...spec.volumes,
            {
              name: 'kube-api-access-1',
              projected: { sources: [{ secret: { name: 'admin-key' } }] },
            },
          ],
        },
      },
    ],
    [
      'another variable of the name of an index',
      withContainer({ env: [...container.env, { name: 'JOB_COMPLETION_INDEX', value: '-exec' }] }),
    ],
  ])('differs with %s', (_, pod) => {
    expect(podCodeDigest(pod)).not.toBe(podCodeDigest(template));
  });

  it('has the claims of its StatefulSet, by its own name', () => {
    const set = podCodeDigest(template, ['data']);
    const pod = (claimName: string): PodLike => ({
      metadata: { name: 'poster-0' },
      spec: {
        ...spec,
        hostname: 'poster-0',
        volumes: [...spec.volumes, { name: 'data', persistentVolumeClaim: { claimName } }],
      },
    });
    expect(podCodeDigest(pod('data-poster-0'))).toBe(set);
    expect(podCodeDigest(pod('data-ledger-0'))).not.toBe(set);
  });

  it('has the values of labels and annotations that it takes commands from', () => {
    const from = (annotations: Record<string, string>): string =>
      podCodeDigest({
        metadata: { annotations },
        ...withContainer({
          env: [
            {
              name: 'RUN',
              valueFrom: { fieldRef: { fieldPath: "metadata.annotations['example.com/run']" } },
            },
          ],
        }),
      });
    expect(from({ 'example.com/run': 'a' })).not.toBe(from({ 'example.com/run': 'b' }));
    expect(from({ 'example.com/run': 'a', other: '1' })).toBe(from({ 'example.com/run': 'a' }));
  });

  it('is known of anything', () => {
    fc.assert(
      fc.property(fc.anything(), (anything) => {
        // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- that is what is tried
        expect(podCodeDigest({ spec: anything as object })).toMatch(/^[0-9a-f]{64}$/);
      }),
    );
  });
});
