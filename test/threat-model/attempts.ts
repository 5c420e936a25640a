import type { AccessReviewSpec } from '../../src/api/access-review.ts';
import { annotation, label, GROUP } from '../../src/api/names.ts';
import type { KubeObject } from '../../src/api/objects.ts';
import { apiVersionOf, resources, type Resource } from '../../src/api/resources.ts';
import {
  answerOf,
  threatsOf,
  type Attacker,
  type ServedPath,
  type ThreatId,
} from '../../src/threat-model/table.ts';
import { path, type Answer, type Api, type RawRequest } from '../integration/admission/api.ts';
import { killSwitch, name } from '../integration/admission/cluster.ts';
import { pod, podSpec, testKinds, type TestKind } from '../integration/admission/workloads.ts';
import {
  editedName,
  harmless,
  heldName,
  replicationControllers,
  waiting,
  withSpec,
  type Arena,
} from './arena.ts';
import { actingPaths, type ServedResource } from './served.ts';

const { pods, secrets, serviceAccounts, killSwitches, namespaces } = resources;
const { workflows, automationIdentities, approvals, roleBindings, statefulSets } = resources;

/** One request of one attacker. */
export interface Attempt {
  /** A few words, for the report of a failure. */
  what: string;
  run: (api: Api) => Promise<Answer>;
  /** Of what is stored, where it is rewritten: whether nothing starts by it. */
  isHarmless?: (answer: Answer) => boolean;
  /** The CRD's schema refuses it, with this sentence, rather than a policy. */
  schema?: string;
  /**
   * When: 0 at once and in parallel; 1 pods end, so that their controllers try; 2 what destroys
   * the arena, or what the controllers try.
   */
  stage?: 1 | 2;
}

const merge = 'application/merge-patch+json';
const strategic = 'application/strategic-merge-patch+json';
const jsonPatch = 'application/json-patch+json';
const applyPatch = 'application/apply-patch+yaml';

function send(what: string, request: RawRequest): Attempt {
  return { what, run: (api) => api.send(request) };
}

/** A JSON merge patch, applied. */
function merged(target: unknown, change: unknown): unknown {
  if (typeof change !== 'object' || change === null || Array.isArray(change)) return change;
  const base = typeof target === 'object' && target !== null && !Array.isArray(target);
  const result: Record<string, unknown> = base ? { ...target } : {};
  for (const [key, value] of Object.entries(change)) {
    if (value === null) delete result[key];
    else result[key] = merged(result[key], value);
  }
  return result;
}

/**
 * Replaces an object, or a subresource of it, by what a merge patch makes of it.
 *
 * @param read where it is read, if not there
 */
function put(arena: Arena, url: string, change: object, read = url): Attempt {
  return {
    what: `PUT ${url} ${JSON.stringify(change)}`,
    run: async (api) => {
      for (let tries = 1; ; tries++) {
        const { object } = await arena.cluster.admin.send({ method: 'GET', url: read });
        const body = merged(object, change) as object;
        const answer = await api.send({ method: 'PUT', url, body });
        // Somebody else wrote in between.
        if (answer.status !== 409 || tries === 10) return answer;
      }
    },
  };
}

function patch(url: string, body: object, type = merge): Attempt {
  return send(`PATCH ${url} ${JSON.stringify(body)}`, { method: 'PATCH', url, body, type });
}

function apply(resource: Resource, url: string, object: object): Attempt {
  const body = { apiVersion: apiVersionOf(resource), kind: resource.kind, ...object };
  const forced = `${url}?fieldManager=attacker&force=true`;
  return send(`apply ${url} ${JSON.stringify(object)}`, {
    method: 'PATCH',
    url: forced,
    body,
    type: applyPatch,
  });
}

/** Replaces the Namespace by way of `finalize`, which nothing reads. */
function finalize(arena: Arena, change: object): Attempt {
  const url = path(namespaces, { name: arena.namespace });
  return put(arena, `${url}/finalize`, change, url);
}

/** The same change by every kind of write. */
function everyWay(
  arena: Arena,
  resource: Resource,
  object: string,
  change: object,
  subresource?: string,
): Attempt[] {
  const url = arena.path(resource, object, subresource);
  return [patch(url, change), patch(url, change, strategic), put(arena, url, change)];
}

function post(resource: Resource, url: string, object: KubeObject): Attempt {
  const body = { apiVersion: apiVersionOf(resource), kind: resource.kind, ...object };
  return send(`POST ${url} ${JSON.stringify(object)}`, { method: 'POST', url, body });
}

function del(url: string, stage: 1 | 2, body?: object): Attempt {
  return { ...send(`DELETE ${url}`, { method: 'DELETE', url, ...(body && { body }) }), stage };
}

function later(stage: 1 | 2, attempts: Attempt[]): Attempt[] {
  return attempts.map((attempt) => ({ ...attempt, stage }));
}

function without(...annotations: string[]): object {
  return { metadata: { annotations: Object.fromEntries(annotations.map((key) => [key, null])) } };
}

function onlyFor(
  attackers: readonly Attacker[],
  attacker: Attacker,
  attempts: Attempt[],
): Attempt[] {
  return attackers.includes(attacker) ? attempts : [];
}

/** Ways in which a pod can be made to look like something else. */
const disguises: readonly [string, object][] = [
  ['plain', {}],
  ['gated', { schedulingGates: [{ name: 'example.com/wait' }] }],
  ['bound', { nodeName: 'node-0' }],
  ['host', { hostNetwork: true }],
  ['job', { restartPolicy: 'Never', activeDeadlineSeconds: 60 }],
  ['init', { initContainers: [{ name: 'first', image: 'other:1' }] }],
  ['other-image', { containers: [{ name: 'main', image: 'other:2' }] }],
  ['tolerant', { tolerations: [{ operator: 'Exists' }], priority: 0 }],
  ['no-token', { automountServiceAccountToken: false }],
  [
    'projected',
    {
      volumes: [
        { name: 't', projected: { sources: [{ serviceAccountToken: { path: 'token' } }] } },
      ],
    },
  ],
];

/** Labels, owners and the like, by which no fence may go. */
const masks: readonly [string, object][] = [
  ['labels', { labels: { 'app.kubernetes.io/managed-by': 'automation-guardrails' } }],
  ['owner', { ownerReferences: [{ apiVersion: 'v1', kind: 'ConfigMap', name: 'x', uid: 'x' }] }],
  ['finalizer', { finalizers: ['example.com/stays'] }],
  ['annotations', { annotations: { [annotation.probe]: '1', [annotation.touch]: '1' } }],
];

function podsOf(arena: Arena, attacker: Attacker, account: string): Attempt[] {
  const url = arena.path(pods);
  const named = (suffix: string): KubeObject =>
    pod(arena.namespace, `${attacker}-${account}-${suffix}`, account);
  return disguises.flatMap(([disguise, spec]) => {
    const posted = withSpec(named(disguise), spec);
    const applied = withSpec(named(`${disguise}-applied`), spec);
    const unnamed = withSpec(named(disguise), spec);
    return [
      post(pods, url, posted),
      apply(pods, `${url}/${applied.metadata.name}`, applied),
      post(pods, url, {
        ...unnamed,
        metadata: { generateName: 'attempt-', namespace: arena.namespace } as unknown as {
          name: string;
        },
      }),
    ];
  });
}

function deprecatedAccount(): object {
  const { serviceAccountName, ...spec } = podSpec() as { serviceAccountName: string };
  return { ...spec, serviceAccount: serviceAccountName };
}

function asks({ patch: ask, asked }: TestKind): object {
  return ask(asked);
}

function workloadWrites(arena: Arena, attacker: Attacker, kind: TestKind): Attempt[] {
  const { resource, manifest, read, paused, running, asked } = kind;
  const { namespace } = arena;
  const isHarmless = ({ object }: Answer): boolean => read(object) === paused;
  const isJob = resource.kind === 'Job';
  const url = arena.path(resource);
  const fresh = (suffix: string, value?: number | boolean, spec?: object): KubeObject =>
    manifest({ namespace, name: `${attacker}-${suffix}`, value, ...(spec && { spec }) });
  const edited = editedName(kind);
  const applied = manifest({ namespace, name: edited, value: asked });
  const attempts = [
    post(resource, url, fresh('new', running)),
    post(resource, url, fresh('asked', asked)),
    post(resource, url, fresh('default')),
    apply(resource, `${url}/${attacker}-applied`, fresh('applied', asked)),
    apply(resource, `${url}/${edited}`, applied),
    ...everyWay(arena, resource, edited, asks(kind)),
    ...everyWay(arena, resource, edited, {
      ...asks(kind),
      metadata: { labels: { team: attacker }, annotations: { [annotation.touch]: 'forged' } },
    }),
    ...(isJob
      ? [patch(`${url}/${edited}`, { spec: { suspend: false, parallelism: 2 } })]
      : [
          patch(
            `${url}/${edited}`,
            merged(asks(kind), template(kind, 'other:3')) as object,
            strategic,
          ),
        ]),
    ...(kind.field === undefined
      ? []
      : [
          patch(
            `${url}/${edited}`,
            [{ op: 'add', path: `/spec/${kind.field}`, value: asked }],
            jsonPatch,
          ),
        ]),
  ];
  return attempts.map((attempt) => ({ ...attempt, isHarmless }));
}

function template({ resource }: TestKind, image: string): object {
  const containers = [{ name: 'main', image }];
  const spec = { template: { spec: { containers } } };
  return resource.kind === 'CronJob' ? { spec: { jobTemplate: { spec } } } : { spec };
}

/** The object that carries the annotation, where one does, and where it would be otherwise. */
function carriers({ mode, namespace }: Arena): [Resource, string][] {
  const own: [Resource, string][] = [
    [workflows, path(workflows, { namespace, name })],
    [automationIdentities, path(automationIdentities, { namespace, name })],
  ];
  if (mode.name === 'workflow-annotation') return own.slice(0, 1);
  if (mode.name === 'identity-annotation') return own.slice(1);
  return own;
}

function killSwitchName({ mode }: Arena): string {
  return mode.wholeNamespace ? 'namespace' : name;
}

type Course = (arena: Arena, attacker: Attacker) => Attempt[];

/** The attempts for each row of the table, written by hand. */
const attempts: Record<ThreatId, Course> = {
  'pod-create': (arena, attacker) => {
    const url = arena.path(pods);
    const { namespace } = arena;
    const masked = masks.flatMap(([mask, metadata]) => {
      const own = pod(namespace, `${attacker}-mask-${mask}`);
      return [
        post(pods, url, { ...own, metadata: { ...own.metadata, ...metadata } }),
        apply(pods, `${url}/${attacker}-applied-${mask}`, {
          ...own,
          metadata: { ...own.metadata, ...metadata, name: `${attacker}-applied-${mask}` },
        }),
      ];
    });
    const deprecated = {
      metadata: { namespace, name: `${attacker}-deprecated` },
      spec: deprecatedAccount(),
    } as KubeObject;
    return [...podsOf(arena, attacker, name), ...masked, post(pods, url, deprecated)];
  },

  'pod-code': (arena) => {
    const bare = arena.path(pods, 'bare');
    const image = { spec: { containers: [{ name: 'main', image: 'other:1' }] } };
    const gated = arena.path(pods, 'gated');
    const debug = { name: 'debug', image: 'other:1', targetContainerName: 'main' };
    const ephemeral = { spec: { ephemeralContainers: [debug] } };
    const debugging = arena.path(pods, 'bare', 'ephemeralcontainers');
    const [ofController] = arena.watch
      .podsOf(arena.namespace)
      .filter(({ metadata }) => metadata.ownerReferences?.[0]?.kind === 'StatefulSet');
    return [
      patch(bare, image, strategic),
      put(arena, bare, {
        spec: {
          containers: [{ name: 'main', image: 'other:1', terminationMessagePath: '/dev/log' }],
        },
      }),
      patch(
        bare,
        [{ op: 'replace', path: '/spec/containers/0/image', value: 'other:2' }],
        jsonPatch,
      ),
      apply(pods, bare, { metadata: { name: 'bare' }, ...image }),
      patch(arena.path(pods, ofController?.metadata.name), image, strategic),
      patch(gated, { spec: { schedulingGates: null } }),
      patch(gated, { spec: { schedulingGates: [] } }),
      patch(gated, [{ op: 'remove', path: '/spec/schedulingGates' }], jsonPatch),
      put(arena, gated, { spec: { schedulingGates: null } }),
      patch(debugging, ephemeral, strategic),
      put(arena, debugging, ephemeral),
    ].map((attempt) =>
      // Fields that a pod may not change are refused by the API server itself.
      attempt.what.startsWith('PUT') && attempt.what.includes('bare {')
        ? { ...attempt, schema: 'pod updates may not change fields' }
        : attempt,
    );
  },

  'pod-fields': (arena, attacker) => {
    const bare = arena.path(pods, 'bare');
    const resize = {
      spec: { containers: [{ name: 'main', resources: { requests: { cpu: '2' } } }] },
    };
    return [
      ...everyWay(arena, pods, 'bare', { metadata: { labels: { team: attacker } } }),
      ...everyWay(arena, pods, 'bare', { metadata: { annotations: { note: attacker } } }),
      patch(bare, { metadata: { labels: { [label.identity]: 'other' } } }),
      patch(bare, { metadata: { ownerReferences: [] } }),
      patch(bare, { spec: { activeDeadlineSeconds: 3600 } }),
      patch(arena.path(pods, 'bare', 'resize'), resize, strategic),
      patch(arena.path(pods, 'waiting-4'), { spec: { tolerations: [{ operator: 'Exists' }] } }),
      patch(arena.path(pods, 'gated'), { metadata: { finalizers: ['example.com/stays'] } }),
      ...later(1, [
        patch(arena.path(pods, 'bare', 'status'), { status: { phase: 'Pending' } }),
        put(arena, arena.path(pods, 'bare', 'status'), { status: { phase: 'Running' } }),
      ]),
      ...later(
        1,
        arena.watch
          .podsOf(arena.namespace)
          .filter(({ metadata }) => metadata.ownerReferences !== undefined)
          .slice(0, 2)
          .map(({ metadata }) =>
            patch(arena.path(pods, metadata.name, 'status'), { status: { phase: 'Failed' } }),
          ),
      ),
    ];
  },

  'pod-binding': (arena) => {
    const target = { apiVersion: 'v1', kind: 'Node', name: 'node-0' };
    const bind = (url: string, waiter: string): Attempt =>
      send(`bind ${waiter} by ${url}`, {
        method: 'POST',
        url,
        body: {
          apiVersion: 'v1',
          kind: 'Binding',
          metadata: { namespace: arena.namespace, name: waiter },
          target,
        },
      });
    const [first, second, third] = waiting;
    return [
      bind(arena.path(pods, first, 'binding'), first),
      bind(arena.path(pods, second, 'binding'), second),
      bind(`/api/v1/namespaces/${arena.namespace}/bindings`, third),
    ];
  },

  'pod-other-account': (arena, attacker) => [
    ...podsOf(arena, attacker, 'other').slice(0, 6),
    post(pods, arena.path(pods), pod(arena.namespace, `${attacker}-default`, 'default')),
  ],

  'pod-end': (arena) => [
    ...arena.watch
      .podsOf(arena.namespace)
      .filter(({ metadata }) => metadata.ownerReferences !== undefined)
      .flatMap(({ metadata }, index) => {
        const { namespace } = arena;
        const eviction = { apiVersion: 'policy/v1', kind: 'Eviction' };
        const body = { ...eviction, metadata: { namespace, name: metadata.name } };
        const evict = { method: 'POST', url: arena.path(pods, metadata.name, 'eviction') } as const;
        return index % 2 === 0
          ? [del(arena.path(pods, metadata.name), 1)]
          : [{ ...send(`evict ${metadata.name}`, { ...evict, body }), stage: 1 as const }];
      }),
    del(arena.path(pods), 1, { gracePeriodSeconds: 0 }),
  ],

  'pod-connect': (arena) => {
    const on = (method: RawRequest['method'], rest: string): Attempt =>
      send(`${method} ${rest}`, {
        method,
        url: `/api/v1/namespaces/${arena.namespace}/${rest}`,
        ...(method === 'PATCH' && { body: {}, type: merge }),
      });
    const streams = ['exec?command=id&stdout=1', 'attach?stdout=1', 'portforward?ports=80'];
    // None of these has an address, so that the API server has nothing to dial.
    const proxies = ['pods/waiting-4/proxy/', 'services/nothing/proxy/'];
    const methods = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as const;
    return [
      ...streams.flatMap((stream) => [
        on('GET', `pods/waiting-4/${stream}`),
        on('POST', `pods/waiting-4/${stream}`),
      ]),
      ...proxies.flatMap((proxy) => methods.map((method) => on(method, proxy))),
    ];
  },

  'node-proxy': () =>
    (['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as const).map((method) =>
      send(`${method} nodes/none/proxy/run`, {
        method,
        url: '/api/v1/nodes/none/proxy/run/x/y/z',
        ...(method === 'PATCH' && { body: {}, type: merge }),
      }),
    ),

  'workload-write': (arena, attacker) =>
    testKinds.flatMap((kind) => workloadWrites(arena, attacker, kind)),

  'workload-restore': (arena) =>
    testKinds
      .filter(({ resource }) => resource.kind !== 'Job')
      .flatMap((kind) => {
        const { resource, restore } = kind;
        const url = arena.path(resource, heldName(kind));
        const pointer = `/metadata/annotations/${restore.replace('/', '~1')}`;
        return [
          ...everyWay(arena, resource, heldName(kind), without(restore)),
          ...everyWay(arena, resource, heldName(kind), {
            metadata: { annotations: { [restore]: 'banana' } },
          }),
          patch(url, { metadata: { annotations: null } }),
          patch(url, [{ op: 'remove', path: pointer }], jsonPatch),
        ];
      }),

  'workload-scale': (arena, attacker) => {
    const byScale = testKinds.filter(({ resource }) =>
      ['Deployment', 'StatefulSet', 'ReplicaSet'].includes(resource.kind),
    );
    const targets: [Resource, string][] = [
      ...byScale.map((kind): [Resource, string] => [kind.resource, editedName(kind)]),
      [replicationControllers, 'edited-rc'],
    ];
    const scaler: Resource = {
      group: 'autoscaling',
      version: 'v2',
      kind: 'HorizontalPodAutoscaler',
      plural: 'horizontalpodautoscalers',
      namespaced: true,
    };
    return [
      ...targets.flatMap(([resource, object]) => [
        patch(arena.path(resource, object, 'scale'), { spec: { replicas: 5 } }),
        put(arena, arena.path(resource, object, 'scale'), { spec: { replicas: 6 } }),
        patch(
          arena.path(resource, object, 'scale'),
          [{ op: 'replace', path: '/spec/replicas', value: 7 }],
          jsonPatch,
        ),
      ]),
      ...byScale.map((kind) =>
        post(scaler, arena.path(scaler), {
          metadata: { namespace: arena.namespace, name: `${attacker}-${kind.resource.plural}` },
          spec: {
            minReplicas: 3,
            maxReplicas: 9,
            scaleTargetRef: {
              apiVersion: 'apps/v1',
              kind: kind.resource.kind,
              name: editedName(kind),
            },
          },
        } as KubeObject),
      ),
    ];
  },

  'volume-loss': (arena) => {
    const url = arena.path(statefulSets, 'volumes', 'scale');
    return [
      patch(url, { spec: { replicas: 0 } }),
      patch(url, { spec: { replicas: 1 } }),
      put(arena, url, { spec: { replicas: 0 } }),
      patch(url, [{ op: 'replace', path: '/spec/replicas', value: 0 }], jsonPatch),
    ];
  },

  'workload-restore-by-status': (arena) =>
    testKinds
      .filter(({ resource }) => resource.kind !== 'Job')
      .flatMap((kind) => {
        const url = arena.path(kind.resource, heldName(kind), 'status');
        return [
          patch(url, without(kind.restore)),
          patch(url, { metadata: { annotations: { [kind.restore]: 'banana' } } }),
          put(arena, url, without(kind.restore)),
        ];
      }),

  'workload-status': (arena) =>
    testKinds.flatMap((kind) => {
      const url = arena.path(kind.resource, heldName(kind), 'status');
      return [
        patch(url, { metadata: { labels: { team: 'x' } } }),
        put(arena, url, { status: { observedGeneration: 99 } }),
        patch(url, { status: { observedGeneration: 98 } }),
      ];
    }),

  'workload-end': (arena, attacker) =>
    testKinds.flatMap((kind) => [
      del(arena.path(kind.resource, editedName(kind)), 2),
      del(arena.path(kind.resource), 2),
      ...later(2, [
        post(
          kind.resource,
          arena.path(kind.resource),
          kind.manifest({
            namespace: arena.namespace,
            name: `${attacker}-again`,
            value: kind.asked,
          }),
        ),
      ]),
    ]),

  'replication-controller': (arena, attacker) => {
    const rc = replicationControllers;
    const labels = { app: `${attacker}-rc` };
    const spec = {
      replicas: 2,
      selector: labels,
      template: { metadata: { labels }, spec: podSpec() },
    };
    const object = { metadata: { namespace: arena.namespace, name: `${attacker}-rc` }, spec };
    return [
      post(rc, arena.path(rc), object),
      apply(rc, arena.path(rc, `${attacker}-applied`), {
        metadata: { name: `${attacker}-applied` },
        spec,
      }),
      ...everyWay(arena, rc, 'edited-rc', { spec: { replicas: 4 } }),
      del(arena.path(rc, 'edited-rc'), 2),
      del(arena.path(rc), 2),
    ];
  },

  template: (arena, attacker) => {
    const { namespace } = arena;
    const templates: Resource = { ...pods, plural: 'podtemplates', kind: 'PodTemplate' };
    const revisions: Resource = {
      group: 'apps',
      version: 'v1',
      kind: 'ControllerRevision',
      plural: 'controllerrevisions',
      namespaced: true,
    };
    const metadata = { namespace, name: `${attacker}-template` };
    return [
      post(templates, arena.path(templates), {
        metadata,
        template: { spec: podSpec() },
      } as KubeObject),
      post(revisions, arena.path(revisions), {
        metadata,
        revision: 9,
        data: { spec: { template: { spec: podSpec() } } },
      } as KubeObject),
    ];
  },

  'token-request': (arena, attacker) => {
    const url = arena.path(serviceAccounts, name, 'token');
    const uid = arena.watch.podsOf(arena.namespace).find(({ metadata }) => metadata.name === 'bare')
      ?.metadata.uid;
    const specs: object[] = [
      {},
      { audiences: ['erp'] },
      { expirationSeconds: 600 },
      { expirationSeconds: 365 * 24 * 3600 },
      { boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: 'bare', uid } },
      { boundObjectRef: { apiVersion: 'v1', kind: 'Secret', name: 'own' } },
      { audiences: ['https://kubernetes.default.svc'], expirationSeconds: 7200 },
    ];
    const ask = (spec: object): Attempt =>
      send(`POST ${url} ${JSON.stringify(spec)}`, {
        method: 'POST',
        url,
        body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec },
      });
    const kubelet = arena.cluster.admin.as('system:node:node-0', 'system:nodes');
    return [
      ...specs.map(ask),
      ...onlyFor(['controllers'], attacker, specs.slice(4, 5).map(ask)).map((attempt) => ({
        ...attempt,
        what: `as a kubelet: ${attempt.what}`,
        run: () => attempt.run(kubelet),
      })),
    ];
  },

  'token-secret': (arena, attacker) => {
    const type = 'kubernetes.io/service-account-token';
    const annotations = { 'kubernetes.io/service-account.name': name };
    const secret = (suffix: string): KubeObject =>
      ({
        metadata: { namespace: arena.namespace, name: `${attacker}-${suffix}`, annotations },
        type,
      }) as KubeObject;
    return [
      post(secrets, arena.path(secrets), secret('token')),
      apply(secrets, arena.path(secrets, `${attacker}-applied-token`), secret('applied-token')),
      post(secrets, arena.path(secrets), {
        ...secret('token'),
        metadata: { generateName: 'token-', annotations } as unknown as { name: string },
      }),
      // One that another account's token is in already.
      ...everyWay(arena, secrets, 'other-token', { metadata: { annotations } }),
      apply(secrets, arena.path(secrets, 'other-token'), {
        metadata: { name: 'other-token', annotations },
        type,
      }),
    ];
  },

  'secret-read': (arena) => [
    send('GET secrets', { method: 'GET', url: arena.path(secrets) }),
    send('GET secret', { method: 'GET', url: arena.path(secrets, 'own') }),
  ],

  'secret-write': (arena, attacker) => [
    post(secrets, arena.path(secrets), {
      metadata: { namespace: arena.namespace, name: `${attacker}-opaque` },
    }),
    ...everyWay(arena, secrets, 'own', { stringData: { password: attacker } }),
    del(arena.path(secrets, 'own'), 2),
    del(arena.path(secrets), 2),
  ],

  'account-create': (arena) => {
    const url = arena.path(serviceAccounts);
    const account = { metadata: { namespace: arena.namespace, name } };
    return [
      post(serviceAccounts, url, account),
      post(serviceAccounts, url, {
        metadata: { ...account.metadata, labels: { [label.identity]: name } },
      }),
    ];
  },

  account: (arena) => [
    // Pods that the controllers make would then be refused for their token, and not by the fence.
    ...later(2, everyWay(arena, serviceAccounts, name, { automountServiceAccountToken: true })),
    ...everyWay(arena, serviceAccounts, name, { metadata: { labels: { team: 'x' } } }),
    patch(arena.path(serviceAccounts, name), { secrets: [{ name: 'other-token' }] }),
    del(arena.path(serviceAccounts, name), 2),
    del(arena.path(serviceAccounts), 2),
  ],

  impersonation: (arena, attacker) => {
    if (attacker !== 'editor' && attacker !== 'admin' && attacker !== 'gitops') return [];
    const acting = arena.acting[attacker].as(`system:serviceaccount:${arena.namespace}:${name}`);
    const own = pod(arena.namespace, `${attacker}-impersonated`);
    return [
      send('read as the automation', {
        method: 'GET',
        url: `/api/v1/namespaces/${arena.namespace}/configmaps`,
      }),
      post(pods, arena.path(pods), own),
      send('ask for a token as the automation', {
        method: 'POST',
        url: arena.path(serviceAccounts, name, 'token'),
        body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: {} },
      }),
    ].map((attempt) => ({ ...attempt, run: () => attempt.run(acting) }));
  },

  certificate: () => [],
  review: () => [],

  'kill-switch-delete': (arena) => {
    const url = arena.path(killSwitches, killSwitchName(arena));
    return [
      del(url, 1),
      del(url, 1, { propagationPolicy: 'Orphan' }),
      del(url, 1, { propagationPolicy: 'Foreground' }),
      del(url, 1, { gracePeriodSeconds: 0 }),
      del(arena.path(killSwitches), 1),
      del(`${arena.path(killSwitches)}?labelSelector=x!%3Dy`, 1),
    ];
  },

  'kill-switch-edit': (arena, attacker) => {
    const url = arena.path(killSwitches, killSwitchName(arena));
    const immutable = "can't be changed";
    const specs = [
      { workflow: 'other' },
      { workflow: null, wholeNamespace: null },
      { reason: 'never mind' },
      { engagedBy: 'somebody else' },
      { wholeNamespace: arena.mode.wholeNamespace ? null : true },
    ];
    const marks: object[] = [
      { labels: { [label.releasing]: 'true' } },
      { labels: { [label.releasing]: 'false' } },
      { annotations: { [annotation.releasedBy]: 'bob' } },
      { annotations: { [annotation.breakGlass]: 'urgent' } },
      { annotations: { [annotation.probe]: '1' } },
      {
        labels: { [label.releasing]: 'true' },
        annotations: { [annotation.breakGlass]: 'urgent' },
      },
      ...(attacker === 'gitops' ? [] : [{ finalizers: ['example.com/stays'] }]),
    ];
    return [
      ...specs.flatMap((spec) =>
        [patch(url, { spec }), put(arena, url, { spec })].map((attempt) => ({
          ...attempt,
          schema: immutable,
        })),
      ),
      ...marks.flatMap((metadata) => [
        patch(url, { metadata }),
        put(arena, url, { metadata }),
        apply(killSwitches, url, { metadata: { name: killSwitchName(arena), ...metadata } }),
      ]),
    ];
  },

  'kill-switch-self-release': (arena, attacker) => {
    const url = arena.path(killSwitches, killSwitchName(arena));
    const asked = (reason: string): object => ({
      metadata: { annotations: { [annotation.release]: reason } },
    });
    const lifted = {
      metadata: {
        labels: { [label.releasing]: 'true' },
        annotations: { [annotation.release]: 'fixed', [annotation.releasedBy]: 'bob' },
      },
    };
    const { alice, bob } = arena.cluster;
    const asEngager = patch(url, asked('fixed'));
    return [
      patch(url, asked('')),
      patch(url, asked('  ')),
      patch(url, lifted),
      put(arena, url, lifted),
      ...onlyFor(['gitops', 'admin'], attacker, [
        patch(url, asked('fixed')),
        put(arena, url, asked('fixed')),
        apply(killSwitches, url, { ...asked('fixed') }),
      ]),
      ...onlyFor(['releaser'], attacker, [
        {
          ...asEngager,
          what: `as who engaged: ${asEngager.what}`,
          run: () => asEngager.run(alice),
        },
        {
          ...patch(url, lifted),
          what: 'lifts what he asks for',
          run: () => patch(url, lifted).run(bob),
        },
      ]),
    ];
  },

  'kill-switch-release': (arena, attacker) => {
    const url = arena.path(killSwitches, killSwitchName(arena));
    const asked = { metadata: { annotations: { [annotation.release]: 'fixed' } } };
    // Somebody without the right is tried in the row before.
    return onlyFor(['releaser'], attacker, later(2, [patch(url, asked)]));
  },

  'kill-switch-forge': (arena, attacker) => {
    const forged = (suffix: string, metadata: object): KubeObject => {
      const object = killSwitch(arena.namespace, { workflow: `${attacker}-${suffix}` });
      return {
        ...object,
        metadata: {
          namespace: arena.namespace,
          name: object.spec.workflow,
          ...metadata,
        } as KubeObject['metadata'],
      };
    };
    const url = arena.path(killSwitches);
    return [
      post(killSwitches, url, forged('releasing', { labels: { [label.releasing]: 'true' } })),
      post(killSwitches, url, forged('asked', { annotations: { [annotation.release]: 'x' } })),
      post(killSwitches, url, forged('by', { annotations: { [annotation.releasedBy]: 'x' } })),
      post(killSwitches, url, forged('probe', { annotations: { [annotation.probe]: 'x' } })),
      post(killSwitches, url, forged('stays', { finalizers: ['example.com/stays'] })),
      post(
        killSwitches,
        url,
        forged('owned', {
          ownerReferences: [{ apiVersion: 'v1', kind: 'ConfigMap', name: 'x', uid: 'x' }],
        }),
      ),
    ];
  },

  'kill-switch-create': (arena, attacker) => {
    const another = killSwitch(arena.namespace, { workflow: `${attacker}-more` });
    const object = { ...another, metadata: { ...another.metadata, name: `${attacker}-more` } };
    return [post(killSwitches, arena.path(killSwitches), object)];
  },

  'kill-switch-status': (arena) => {
    const url = arena.path(killSwitches, killSwitchName(arena), 'status');
    const marks = {
      metadata: {
        labels: { [label.releasing]: 'true' },
        annotations: { [annotation.release]: 'x' },
      },
    };
    return [
      patch(url, { status: { conditions: [] } }),
      put(arena, url, { status: { conditions: [] } }),
      patch(url, marks),
      put(arena, url, marks),
    ];
  },

  'cluster-kill-switch': (_, attacker) => {
    const { clusterKillSwitches } = resources;
    const object = {
      apiVersion: apiVersionOf(clusterKillSwitches),
      kind: clusterKillSwitches.kind,
      metadata: { name: `${attacker}-more` },
      // Of no namespace: it must not stop the others' attempts.
      spec: { namespaceSelector: { matchLabels: { team: 'nobody' } }, reason: 'more' },
    };
    return [post(clusterKillSwitches, path(clusterKillSwitches, {}), object)];
  },

  'guardrail-policy': () => {
    const { guardrailPolicies } = resources;
    const object = {
      apiVersion: apiVersionOf(guardrailPolicies),
      kind: guardrailPolicies.kind,
      metadata: { name: 'default' },
      // Nothing for the others' attempts to meet.
      spec: { enforcement: 'Audit' },
    };
    return [post(guardrailPolicies, path(guardrailPolicies, {}), object)];
  },

  'annotation-removal': (arena) =>
    carriers(arena).flatMap(([resource, url]) => {
      const { killSwitch: mark, killSwitchEngagedBy } = annotation;
      const pointer = `/metadata/annotations/${mark.replace('/', '~1')}`;
      const collection = url.slice(0, url.lastIndexOf('/'));
      return [
        patch(url, without(mark)),
        patch(url, without(mark, killSwitchEngagedBy)),
        patch(url, { metadata: { annotations: null, labels: null } }),
        patch(url, {
          metadata: {
            annotations: { [mark]: null, [annotation.breakGlass]: 'urgent' },
            labels: { [label.engaged]: null },
          },
        }),
        patch(url, [{ op: 'remove', path: pointer }], jsonPatch),
        put(arena, url, without(mark)),
        put(arena, url, { metadata: { annotations: null, labels: null } }),
        del(url, 1),
        del(url, 1, { gracePeriodSeconds: 0, propagationPolicy: 'Orphan' }),
        del(collection, 1),
      ].map((attempt) => ({ ...attempt, what: `${resource.kind}: ${attempt.what}` }));
    }),

  'namespace-annotation-removal': (arena) => {
    const url = path(namespaces, { name: arena.namespace });
    const { killSwitch: mark } = annotation;
    const pointer = `/metadata/annotations/${mark.replace('/', '~1')}`;
    return [
      patch(url, without(mark)),
      patch(url, without(mark, annotation.killSwitchEngagedBy)),
      patch(url, { metadata: { annotations: null } }),
      patch(url, [{ op: 'remove', path: pointer }], jsonPatch),
      put(arena, url, without(mark)),
      patch(`${url}/status`, without(mark)),
      put(arena, `${url}/status`, without(mark)),
      finalize(arena, without(mark)),
    ];
  },

  'annotation-marks': (arena, attacker) =>
    carriers(arena).flatMap(([, url]) => [
      patch(url, { metadata: { labels: { [label.engaged]: null } } }),
      patch(url, { metadata: { labels: { [label.engaged]: 'false' } } }),
      put(arena, url, { metadata: { labels: null } }),
      patch(url, { metadata: { annotations: { [annotation.killSwitchEngagedBy]: 'somebody' } } }),
      patch(url, without(annotation.killSwitchEngagedBy)),
      ...(attacker === 'gitops'
        ? []
        : [patch(url, { metadata: { labels: { [label.latched]: 'true' } } })]),
    ]),

  'access-review': (arena, attacker) => [
    post(resources.accessReviews, arena.path(resources.accessReviews), {
      metadata: { namespace: arena.namespace, name: `${attacker}-keeps` },
      spec: reviewOf('Keep'),
    } as KubeObject),
  ],

  'own-kinds': (arena, attacker) => {
    const { namespace } = arena;
    const workflow = arena.path(workflows, name);
    const identity = arena.path(automationIdentities, name);
    const targets = [{ group: 'apps', kind: 'Deployment', name: 'elsewhere' }];
    return [
      patch(workflow, { spec: { targets } }),
      put(arena, workflow, { spec: { targets, description: attacker } }),
      patch(identity, { spec: { purpose: attacker } }),
      put(arena, identity, { spec: { purpose: attacker } }),
      post(workflows, arena.path(workflows), {
        metadata: { namespace, name: `${attacker}-more` },
        spec: { targets },
      } as KubeObject),
      patch(`${workflow}/status`, { status: { conditions: [] } }),
      patch(`${identity}/status`, { status: { conditions: [] } }),
    ];
  },

  approval: (arena, attacker) => {
    const { namespace } = arena;
    const decision = {
      metadata: { namespace, name: `${attacker}-decision` },
      spec: { workflow: name, digest: '0'.repeat(64), decision: 'Approve', reason: 'x' },
    } as KubeObject;
    const url = arena.path(approvals, decision.metadata.name);
    return [
      post(approvals, arena.path(approvals), decision),
      patch(url, { metadata: { labels: { x: 'y' } } }),
      del(url, 1),
    ];
  },

  revision: (arena, attacker) => {
    const { workflowRevisions } = resources;
    const revision = {
      metadata: { namespace: arena.namespace, name: `${name}.1` },
      spec: {
        workflow: name,
        revision: 1,
        digest: '0'.repeat(64),
        authenticated: [attacker],
        changers: [],
        parts: [{ name: 'Workflow', digest: '0'.repeat(64) }],
      },
    } as KubeObject;
    const url = arena.path(workflowRevisions, revision.metadata.name);
    return [
      post(workflowRevisions, arena.path(workflowRevisions), revision),
      patch(url, { metadata: { labels: { x: 'y' } } }),
      patch(`${url}/status`, { status: { active: true } }),
      del(url, 1),
    ];
  },

  namespace: (arena) => {
    const url = path(namespaces, { name: arena.namespace });
    const unguard = { metadata: { labels: { [label.environment]: null } } };
    const pointer = `/metadata/labels/${label.environment.replace('/', '~1')}`;
    return [
      patch(url, unguard),
      patch(url, unguard, strategic),
      put(arena, url, unguard),
      patch(`${url}/status`, unguard),
      put(arena, `${url}/status`, unguard),
      finalize(arena, unguard),
      patch(url, { metadata: { labels: null } }),
      patch(url, [{ op: 'remove', path: pointer }], jsonPatch),
      del(url, 1),
      del(url, 1, { gracePeriodSeconds: 0 }),
    ];
  },

  'namespace-other': (arena, attacker) => [
    post(namespaces, path(namespaces, {}), {
      metadata: { name: `${arena.namespace}-${attacker}` },
    }),
    patch(path(namespaces, { name: arena.namespace }), {
      metadata: { labels: { team: attacker } },
    }),
  ],

  'permission-bind': (arena, attacker) => {
    const { namespace } = arena;
    const apiGroup = 'rbac.authorization.k8s.io';
    const url = arena.path(roleBindings);
    const reaching: [string, object][] = [
      ['account', { kind: 'ServiceAccount', name, namespace }],
      ['user', { apiGroup, kind: 'User', name: `system:serviceaccount:${namespace}:${name}` }],
      ['group', { apiGroup, kind: 'Group', name: `system:serviceaccounts:${namespace}` }],
      ['all', { apiGroup, kind: 'Group', name: 'system:serviceaccounts' }],
      ['everybody', { apiGroup, kind: 'Group', name: 'system:authenticated' }],
    ];
    const give = (role: string, suffix: string, subject: object): KubeObject =>
      ({
        metadata: { namespace, name: `${attacker}-${role}-${suffix}` },
        roleRef: { apiGroup, kind: 'ClusterRole', name: role },
        subjects: [{ apiGroup, kind: 'User', name: 'alice' }, subject],
      }) as KubeObject;
    const roles = ['view', 'edit', 'cluster-admin', 'automation-guardrails-operator'];
    return [
      ...roles.flatMap((role) =>
        reaching.map(([suffix, subject]) => post(roleBindings, url, give(role, suffix, subject))),
      ),
      ...reaching.flatMap(([suffix, subject]) => [
        apply(roleBindings, `${url}/${attacker}-applied-${suffix}`, {
          ...give('view', suffix, subject),
          metadata: { namespace, name: `${attacker}-applied-${suffix}` },
        }),
        ...everyWay(arena, roleBindings, harmless, { subjects: [subject] }),
      ]),
    ];
  },

  permission: (arena, attacker) => {
    const grant = (verb: string): KubeObject =>
      ({
        metadata: { namespace: arena.namespace, name: `${attacker}-${verb}` },
        rules: [{ apiGroups: [GROUP], resources: ['killswitches'], verbs: [verb] }],
      }) as KubeObject;
    const url = arena.path(resources.roles);
    return [
      ...['lift', 'latch', 'release', 'break-glass'].map((verb) =>
        post(resources.roles, url, grant(verb)),
      ),
      ...everyWay(arena, roleBindings, harmless, { metadata: { labels: { team: attacker } } }),
    ];
  },

  evidence: () => [],
  'cluster-permission': () => [],
  policy: () => [],
  webhook: () => [],
  kinds: () => [],

  egress: (arena, attacker) => {
    const policies = resources.networkPolicies;
    const open = {
      metadata: { namespace: arena.namespace, name: `${attacker}-open` },
      spec: { podSelector: {}, policyTypes: ['Egress'], egress: [{}] },
    };
    return [post(policies, arena.path(policies), open)];
  },

  node: () => [],
  rest: () => [],
};

function reviewOf(decision: AccessReviewSpec['decision']): AccessReviewSpec {
  return { identity: name, decision, reason: 'a test', digest: `sha256:${'0'.repeat(64)}` };
}

/** Everything that an attacker tries in an arena for one threat. */
export function handWritten(id: ThreatId, arena: Arena, attacker: Attacker): Attempt[] {
  return attempts[id](arena, attacker);
}

/** Objects that stand in an arena, for a request that needs one. */
const objects: Record<string, string> = {
  pods: 'waiting-4',
  secrets: 'own',
  serviceaccounts: name,
  killswitches: name,
  automationworkflows: name,
  automationidentities: name,
  nodes: 'node-0',
  deployments: 'edited-deployment',
  statefulsets: 'edited-statefulset',
  daemonsets: 'edited-daemonset',
  replicasets: 'edited-replicaset',
  replicationcontrollers: 'edited-rc',
  jobs: 'edited-job',
  cronjobs: 'edited-cronjob',
};

const bodies: Record<string, object> = {
  accessreviews: { spec: reviewOf('Revoke') },
  tokenreviews: { spec: { token: 'x' } },
  selfsubjectaccessreviews: { spec: { nonResourceAttributes: { path: '/', verb: 'get' } } },
  subjectaccessreviews: { spec: { user: 'x', nonResourceAttributes: { path: '/', verb: 'get' } } },
  selfsubjectrulesreviews: { spec: { namespace: 'default' } },
};

/** One request for each path that the API server serves, and the row of the table that it is for. */
export function generated(
  served: readonly ServedResource[],
  arena: Arena,
  attacker: Attacker,
): { id: string; attempt: Attempt }[] {
  return served.flatMap((resource) =>
    actingPaths([resource]).flatMap((acting) => {
      const known = threatsOf(acting).find(({ id, ...threat }) => {
        if (id === 'kill-switch-release') return false;
        const { outcome } = answerOf({ id, ...threat }, arena.mode);
        return outcome !== 'Denied' && outcome !== 'Rewritten';
      });
      // RBAC of the whole cluster is the same however the kill was engaged.
      const isRefused = !resource.namespaced && !known?.reach.includes(attacker);
      if (isRefused && arena.mode.name !== 'kill-switch') return [];
      const request = known && requestFor(resource, acting, arena, attacker);
      return known && request ? [{ id: known.id, attempt: request }] : [];
    }),
  );
}

function requestFor(
  { group, version, kind, namespaced }: ServedResource,
  { resource, verb }: ServedPath,
  arena: Arena,
  attacker: Attacker,
): Attempt | undefined {
  const [plural = '', subresource] = resource.split('/');
  // Connections and namespaces are tried by hand: they would hang, or end the arena.
  if (/\/(exec|attach|portforward|proxy)$/.test(resource) || plural === 'namespaces') return;
  const at = { group, version, kind, plural, namespaced };
  const object = objects[plural] ?? `attempt-of-${attacker}`;
  const target = { ...(namespaced && { namespace: arena.namespace }) };
  const collection = path(at, target);
  const item = path(
    at,
    { ...target, name: object },
    subresource === undefined ? {} : { subresource },
  );
  // What holds for the whole cluster, or gives the attackers their rights, stays for the others.
  const dryRun = !namespaced || group === 'rbac.authorization.k8s.io';
  const body = {
    apiVersion: apiVersionOf(at),
    kind,
    metadata: { name: object, ...target },
    ...bodies[plural],
  };
  const what = `${verb} ${resource}.${group}/${version}`;
  switch (verb) {
    case 'create':
      return send(what, {
        method: 'POST',
        url: subresource === undefined ? collection : item,
        body,
        dryRun: dryRun && !plural.endsWith('reviews'),
      });
    case 'update':
      return {
        ...put(arena, item, { metadata: { labels: { team: attacker } } }),
        what,
        ...dry(dryRun, item, attacker),
      };
    case 'patch':
      return send(what, {
        method: 'PATCH',
        url: item,
        body: { metadata: { labels: { team: attacker } } },
        type: merge,
        dryRun,
      });
    case 'delete':
      return { ...send(what, { method: 'DELETE', url: item, dryRun }), stage: 2 };
    default:
      return { ...send(what, { method: 'DELETE', url: collection, dryRun }), stage: 2 };
  }
}

function dry(dryRun: boolean, url: string, attacker: Attacker): Partial<Attempt> {
  if (!dryRun) return {};
  const body = { metadata: { name: url.split('/').at(-1), labels: { team: attacker } } };
  return { run: (api) => api.send({ method: 'PUT', url, body, dryRun }) };
}
