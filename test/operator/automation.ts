import { label, secretNameOf } from '../../src/api/names.ts';

/** One automation with a workload of every native kind, as manifests for tests. */
export interface AutomationOptions {
  namespace: string;
  name?: string;
  /** Label of the namespace; `undefined` leaves it unguarded. */
  environment?: string;
  /** Rotation of its one secret, a Go-style duration. */
  rotateEvery?: string;
}

const image = 'registry.example/automation:1';

function podTemplate(name: string, component: string, secret?: string): object {
  return {
    // Where admission writes no labels, a pod of an identity brings its own.
    metadata: { labels: { app: name, component, [label.identity]: name } },
    spec: {
      serviceAccountName: name,
      automountServiceAccountToken: false,
      terminationGracePeriodSeconds: 5,
      containers: [
        {
          name: 'main',
          image,
          ...(secret !== undefined && {
            env: [
              { name: 'PASSWORD', valueFrom: { secretKeyRef: { name: secret, key: 'password' } } },
            ],
          }),
        },
      ],
    },
  };
}

/** Namespace, identity, Workflow, and a workload of every native kind. */
export function automation({
  namespace,
  name = 'invoice',
  environment = 'test',
  rotateEvery = '24h',
}: AutomationOptions): object[] {
  const metadata = (component: string): object => ({
    name: `${name}-${component}`,
    namespace,
    labels: { app: name },
  });
  const selector = (component: string): object => ({ matchLabels: { app: name, component } });
  const owner = { team: 'payments', contact: 'payments@example.com', escalation: '+1 555 0100' };
  return [
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: {
        name: namespace,
        labels: { 'automationguardrails.dev/environment': environment },
      },
    },
    {
      apiVersion: 'automationguardrails.dev/v1alpha1',
      kind: 'AutomationIdentity',
      metadata: { name, namespace },
      spec: {
        purpose: 'Posts invoices',
        owner,
        permissions: [
          {
            apiGroups: [''],
            resources: ['configmaps'],
            verbs: ['get'],
            reason: 'reads its settings',
          },
        ],
        secrets: [
          {
            name: 'database',
            type: 'Password',
            rotation: { every: rotateEvery, overlap: '1h', restartConsumers: true },
          },
        ],
      },
    },
    {
      apiVersion: 'automationguardrails.dev/v1alpha1',
      kind: 'Workflow',
      metadata: { name, namespace },
      spec: {
        description: 'Posts invoices',
        owner,
        targets: [
          { group: 'apps', kind: 'Deployment', name: `${name}-poster` },
          { group: 'apps', kind: 'StatefulSet', name: `${name}-store` },
          { group: 'apps', kind: 'DaemonSet', name: `${name}-agent` },
          { group: 'apps', kind: 'ReplicaSet', name: `${name}-worker` },
          { group: 'batch', kind: 'CronJob', name: `${name}-import` },
          { group: 'batch', kind: 'Job', name: `${name}-backfill` },
        ],
        egress: [
          { cidr: '203.0.113.10/32', ports: [{ port: 443, protocol: 'TCP' }], reason: 'ERP' },
        ],
      },
    },
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: metadata('poster'),
      spec: {
        replicas: 3,
        selector: selector('poster'),
        template: podTemplate(name, 'poster', secretNameOf(name, 'database')),
      },
    },
    {
      apiVersion: 'apps/v1',
      kind: 'StatefulSet',
      metadata: metadata('store'),
      spec: {
        replicas: 2,
        serviceName: `${name}-store`,
        podManagementPolicy: 'Parallel',
        selector: selector('store'),
        template: podTemplate(name, 'store'),
      },
    },
    {
      apiVersion: 'apps/v1',
      kind: 'DaemonSet',
      metadata: metadata('agent'),
      spec: { selector: selector('agent'), template: podTemplate(name, 'agent') },
    },
    {
      apiVersion: 'apps/v1',
      kind: 'ReplicaSet',
      metadata: metadata('worker'),
      spec: { replicas: 2, selector: selector('worker'), template: podTemplate(name, 'worker') },
    },
    {
      apiVersion: 'batch/v1',
      kind: 'CronJob',
      metadata: metadata('import'),
      spec: {
        schedule: '0 3 1 1 *',
        jobTemplate: {
          spec: {
            template: {
              ...podTemplate(name, 'import'),
              spec: {
                ...(podTemplate(name, 'import') as { spec: object }).spec,
                restartPolicy: 'Never',
              },
            },
          },
        },
      },
    },
    {
      apiVersion: 'batch/v1',
      kind: 'Job',
      metadata: metadata('backfill'),
      spec: {
        backoffLimit: 0,
        template: {
          ...podTemplate(name, 'backfill'),
          spec: {
            ...(podTemplate(name, 'backfill') as { spec: object }).spec,
            restartPolicy: 'Never',
          },
        },
      },
    },
  ];
}

/**
 * Pods that run when nothing is stopped: 3 of the Deployment, 2 of the StatefulSet, 1 of the
 * DaemonSet on the one node, 2 of the ReplicaSet, 1 of the Job.
 */
export const automationPods = 9;
