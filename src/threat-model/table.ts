import { GROUP } from '../api/names.ts';

/**
 * The threat model of the kill switch, as data: what each attacker can try while a kill stands and
 * no operator runs, and what comes of it. The matrix in docs/threat-model.md is made from it, and
 * so are the attempts of test/exhaustive/threat-model.test.ts.
 */

/** Who attacks, with which rights. */
export const attackers = [
  {
    name: 'automation',
    who: 'the automation itself, with its own ServiceAccount and the Role that it declared',
  },
  {
    name: 'controllers',
    who: 'another controller: a ServiceAccount that may write every built-in workload, pod, Secret and token of the cluster, but nothing of RBAC, admission or our kinds',
  },
  { name: 'gitops', who: 'a pipeline: a ServiceAccount with cluster-admin' },
  {
    name: 'editor',
    who: 'a person with ClusterRole edit in the namespace, and the role requester',
  },
  {
    name: 'admin',
    who: 'a person with ClusterRole admin in the namespace, and every ordinary verb on our kinds and their status',
  },
  { name: 'releaser', who: 'a person with the role releaser, and nothing else' },
  { name: 'killer', who: 'a person with the role killer, and nothing else' },
] as const;

export type Attacker = (typeof attackers)[number]['name'];

/**
 * What comes of an attempt by somebody whom RBAC allows it.
 *
 * - `Denied`: a policy of ours refuses it, by its name.
 * - `Rewritten`: it is stored, but so that nothing starts.
 * - `StartsNothing`: it goes its way; nothing of the automation starts by it.
 * - `Detected`: it goes through, and the operator reports it.
 * - `OutOfScope`: it goes through; nothing of ours can stop it.
 */
export type Outcome = 'Denied' | 'Rewritten' | 'StartsNothing' | 'Detected' | 'OutOfScope';

/** What attackers without the right meet, whatever the outcome for others. */
export type CellOutcome = Outcome | 'NoRight';

export type Verb =
  | 'create'
  | 'update'
  | 'patch'
  | 'delete'
  | 'deletecollection'
  | 'get'
  | 'list'
  | 'watch'
  | 'impersonate';

/** Resources (`pods`, `pods/exec`) of a group, and what is done with them. */
export interface Path {
  /** Empty for the core group. */
  readonly group: string;
  readonly resources: readonly string[];
  readonly verbs: readonly Verb[];
}

export interface Answer {
  readonly outcome: Outcome;
  /** Why that is so, or why no more is possible. One or two sentences. */
  readonly why: string;
}

export interface Threat extends Answer {
  readonly id: string;
  /** What is tried. */
  readonly what: string;
  readonly paths: readonly Path[];
  /** Whom RBAC lets try it, for at least one of the paths. */
  readonly reach: readonly Attacker[];
  /** What else comes of it where the kill is engaged in another way; the first that fits. */
  readonly otherwise?: readonly (Answer & { readonly when: Partial<Engagement> })[];
}

/** How the kill is engaged, as far as the table tells it apart. */
export interface Engagement {
  /** By an annotation alone, which no operator has latched. */
  readonly byAnnotation: boolean;
  readonly wholeNamespace: boolean;
}

const apps = 'apps';
const batch = 'batch';
const rbac = 'rbac.authorization.k8s.io';
const write = ['create', 'update', 'patch'] as const;
const change = ['update', 'patch'] as const;
const remove = ['delete', 'deletecollection'] as const;
const all = [...write, ...remove] as const;
const connect = ['get', 'create', 'update', 'patch', 'delete'] as const;

function path(group: string, resources: readonly string[], verbs: readonly Verb[]): Path {
  return { group, resources, verbs };
}

const writers = ['controllers', 'gitops', 'editor', 'admin'] as const;
const clusterWide = ['controllers', 'gitops'] as const;
const clusterAdmin = ['gitops'] as const;

export const threats = [
  {
    id: 'pod-create',
    what: 'Create a pod that runs as the automation',
    paths: [path('', ['pods'], ['create'])],
    reach: writers,
    outcome: 'Denied',
    why: 'The fence refuses pods by their serviceAccountName, whoever asks, controllers included.',
  },
  {
    id: 'pod-code',
    what: 'Give a pod that is left another image or container, or lift its scheduling gate',
    paths: [path('', ['pods', 'pods/ephemeralcontainers'], change)],
    reach: writers,
    outcome: 'Denied',
    why: 'It would start code in a pod that the fence can no longer refuse.',
  },
  {
    id: 'pod-fields',
    what: 'Change other fields of a pod that is left, its resources or its status',
    paths: [path('', ['pods', 'pods/resize', 'pods/status'], change)],
    reach: writers,
    outcome: 'StartsNothing',
    why: 'No other code runs by it. A finalizer keeps a deleted pod listed, not running.',
  },
  {
    id: 'pod-binding',
    what: 'Bind a pod from before the kill, which still waits, to a node',
    paths: [path('', ['pods/binding', 'bindings'], ['create'])],
    reach: clusterWide,
    outcome: 'OutOfScope',
    why: 'The request names the pod and nothing of it. A pod that was admitted before the kill can start until an operator deletes it, within milliseconds where one runs.',
    otherwise: [
      {
        when: { wholeNamespace: true },
        outcome: 'Denied',
        why: 'Nothing of a namespace that is stopped as a whole gets a node.',
      },
    ],
  },
  {
    id: 'pod-other-account',
    what: "Run the automation's image as another ServiceAccount",
    paths: [path('', ['pods'], ['create'])],
    reach: writers,
    outcome: 'OutOfScope',
    why: 'A kill stops an identity. Another one can be killed too, or the whole namespace.',
    otherwise: [
      {
        when: { wholeNamespace: true },
        outcome: 'Denied',
        why: 'Nothing starts in a namespace that is stopped as a whole.',
      },
    ],
  },
  {
    id: 'pod-end',
    what: 'Delete or evict pods, so that their controllers make new ones',
    paths: [path('', ['pods'], remove), path('', ['pods/eviction'], ['create'])],
    reach: writers,
    outcome: 'StartsNothing',
    why: 'The pod ends, and the next one is refused.',
  },
  {
    id: 'pod-connect',
    what: 'Run a command in a pod that is left, or talk to it',
    paths: [
      path('', ['pods/exec', 'pods/attach', 'pods/portforward'], ['get', 'create']),
      path('', ['pods/proxy', 'services/proxy'], connect),
    ],
    reach: writers,
    outcome: 'OutOfScope',
    why: "The request names the pod, but has neither its labels nor its account, so that admission can't tell whose it is. An operator deletes the pods.",
  },
  {
    id: 'node-proxy',
    what: 'Reach a kubelet through the API server',
    paths: [path('', ['nodes/proxy'], connect)],
    reach: clusterWide,
    outcome: 'OutOfScope',
    why: 'Admission sees the node, and nothing of what is asked of it. Who holds nodes/proxy owns every pod of the node.',
  },
  {
    id: 'workload-write',
    what: 'Create, replace or change a workload, so that it runs',
    paths: [
      path(apps, ['deployments', 'statefulsets', 'daemonsets', 'replicasets'], write),
      path(batch, ['jobs', 'cronjobs'], write),
    ],
    reach: writers,
    outcome: 'Rewritten',
    why: 'It is stored paused, and what was asked for is kept for the release.',
    otherwise: [
      {
        when: { byAnnotation: true },
        outcome: 'StartsNothing',
        why: 'It is stored as asked; its pods are refused. An operator makes a KillSwitch of the annotation within milliseconds.',
      },
    ],
  },
  {
    id: 'workload-restore',
    what: 'Drop or falsify what the release puts back',
    paths: [
      path(apps, ['deployments', 'statefulsets', 'daemonsets', 'replicasets'], change),
      path(batch, ['cronjobs'], change),
    ],
    reach: writers,
    outcome: 'Denied',
    why: 'What release puts back stays as long as the workload is paused.',
    otherwise: [
      {
        when: { byAnnotation: true },
        outcome: 'StartsNothing',
        why: 'Nothing is paused yet.',
      },
    ],
  },
  {
    id: 'workload-restore-by-status',
    what: 'Drop or falsify what the release puts back, through the status',
    paths: [
      path(
        apps,
        ['deployments/status', 'statefulsets/status', 'daemonsets/status', 'replicasets/status'],
        change,
      ),
      path(batch, ['cronjobs/status'], change),
    ],
    reach: clusterWide,
    outcome: 'Denied',
    why: 'The API server takes annotations from a request of the status too; ours are refused there.',
    otherwise: [
      { when: { byAnnotation: true }, outcome: 'StartsNothing', why: 'Nothing is paused yet.' },
    ],
  },
  {
    id: 'workload-scale',
    what: 'Scale a workload up, by itself or by an autoscaler',
    paths: [
      path(apps, ['deployments/scale', 'replicasets/scale', 'statefulsets/scale'], change),
      path('', ['replicationcontrollers/scale'], change),
      path('autoscaling', ['horizontalpodautoscalers', 'horizontalpodautoscalers/status'], all),
    ],
    reach: writers,
    outcome: 'StartsNothing',
    why: 'The count is stored, its pods are refused, and an operator pauses it again. The request has nothing of the workload but its name.',
  },
  {
    id: 'volume-loss',
    what: 'Scale a StatefulSet down, so that whenScaled: Delete loses its volumes',
    paths: [path(apps, ['statefulsets/scale'], change)],
    reach: writers,
    outcome: 'Denied',
    why: 'While a KillSwitch stands in the namespace, no StatefulSet is scaled down by /scale.',
    otherwise: [
      {
        when: { byAnnotation: true },
        outcome: 'OutOfScope',
        why: "That is its owner's right, as without a kill; it starts nothing.",
      },
    ],
  },
  {
    id: 'workload-status',
    what: 'Write the status of workloads',
    paths: [
      path(
        apps,
        ['deployments/status', 'statefulsets/status', 'daemonsets/status', 'replicasets/status'],
        change,
      ),
      path(batch, ['jobs/status', 'cronjobs/status'], change),
      path('', ['replicationcontrollers/status'], change),
    ],
    reach: clusterWide,
    outcome: 'StartsNothing',
    why: 'A status starts nothing. Who holds this right is a controller of that kind, or cluster-admin.',
  },
  {
    id: 'workload-end',
    what: 'Delete workloads, to create them anew',
    paths: [
      path(apps, ['deployments', 'statefulsets', 'daemonsets', 'replicasets'], remove),
      path(batch, ['jobs', 'cronjobs'], remove),
    ],
    reach: writers,
    outcome: 'StartsNothing',
    why: 'Its pods end, and what is created anew is stored paused.',
  },
  {
    id: 'replication-controller',
    what: 'Write ReplicationControllers',
    paths: [path('', ['replicationcontrollers'], all)],
    reach: writers,
    outcome: 'StartsNothing',
    why: "They aren't paused; their pods are refused.",
  },
  {
    id: 'template',
    what: 'Write templates and revisions from which pods are made',
    paths: [path('', ['podtemplates'], all), path(apps, ['controllerrevisions'], all)],
    reach: clusterWide,
    outcome: 'StartsNothing',
    why: 'Whatever is made from them is refused like any pod.',
  },
  {
    id: 'token-request',
    what: 'Ask for a token of the automation',
    paths: [path('', ['serviceaccounts/token'], ['create'])],
    reach: writers,
    outcome: 'Denied',
    why: 'Bound or not, with whatever audience and lifetime, kubelets included.',
  },
  {
    id: 'token-secret',
    what: 'Ask for a token that never expires, by a Secret',
    paths: [path('', ['secrets'], write)],
    reach: writers,
    outcome: 'Denied',
    why: 'A Secret of the type service-account-token is answered with a token.',
  },
  {
    id: 'secret-read',
    what: 'Read the values of Secrets',
    paths: [path('', ['secrets'], ['get', 'list', 'watch'])],
    reach: writers,
    outcome: 'OutOfScope',
    why: 'Who may read Secrets may have copied them before the kill; admission sees no reads. The operator withdraws what it generated.',
  },
  {
    id: 'secret-write',
    what: 'Write or delete other Secrets',
    paths: [path('', ['secrets'], all)],
    reach: writers,
    outcome: 'StartsNothing',
    why: 'No value of the automation comes of it.',
  },
  {
    id: 'account-create',
    what: 'Create a ServiceAccount of the name of the automation',
    paths: [path('', ['serviceaccounts'], ['create'])],
    reach: writers,
    outcome: 'Denied',
    why: 'The kill deletes the ServiceAccount; another one would stand in the way of the release.',
    otherwise: [
      {
        when: { wholeNamespace: true },
        outcome: 'StartsNothing',
        why: 'Neither tokens nor pods come of it; the name of an AutomationIdentity is kept for the operator.',
      },
      {
        when: { byAnnotation: true },
        outcome: 'StartsNothing',
        why: 'The fence goes by its name: neither tokens nor pods come of it.',
      },
    ],
  },
  {
    id: 'account',
    what: 'Change or delete the ServiceAccount',
    paths: [path('', ['serviceaccounts'], all)],
    reach: writers,
    outcome: 'StartsNothing',
    why: 'The fence goes by its name: neither tokens nor pods come of it.',
  },
  {
    id: 'impersonation',
    what: "Act as the automation's ServiceAccount",
    paths: [path('', ['serviceaccounts'], ['impersonate'])],
    reach: ['gitops', 'editor', 'admin'],
    outcome: 'OutOfScope',
    why: 'ClusterRole edit may impersonate ServiceAccounts. It starts nothing, as the fence asks what starts and not who asks; what else the account may do, its impersonator may do, until its RoleBinding is removed.',
  },
  {
    id: 'certificate',
    what: "Have a client certificate signed in the automation's name",
    paths: [
      path(
        'certificates.k8s.io',
        [
          'certificatesigningrequests',
          'certificatesigningrequests/approval',
          'certificatesigningrequests/status',
        ],
        all,
      ),
    ],
    reach: clusterAdmin,
    outcome: 'OutOfScope',
    why: "Who may approve and sign client certificates can be anybody in the cluster. Admission can't read the name in the request.",
  },
  {
    id: 'review',
    what: 'Ask who somebody is, or what he may do',
    paths: [
      path('authentication.k8s.io', ['selfsubjectreviews', 'tokenreviews'], ['create']),
      path(
        'authorization.k8s.io',
        [
          'localsubjectaccessreviews',
          'selfsubjectaccessreviews',
          'selfsubjectrulesreviews',
          'subjectaccessreviews',
        ],
        ['create'],
      ),
    ],
    reach: ['automation', 'controllers', 'gitops', 'editor', 'admin', 'releaser', 'killer'],
    outcome: 'StartsNothing',
    why: 'It changes nothing.',
  },
  {
    id: 'kill-switch-delete',
    what: 'Delete the KillSwitch',
    paths: [path(GROUP, ['killswitches'], remove)],
    reach: ['gitops', 'admin'],
    outcome: 'Denied',
    why: 'It is deleted by its release alone, which the operator ends, or together with its namespace.',
    otherwise: [
      {
        when: { byAnnotation: true },
        outcome: 'StartsNothing',
        why: 'There is none yet; the annotation stands.',
      },
    ],
  },
  {
    id: 'kill-switch-edit',
    what: 'Change what the KillSwitch stops, or give it the marks of a release',
    paths: [path(GROUP, ['killswitches'], change)],
    reach: ['gitops', 'admin', 'releaser'],
    outcome: 'Denied',
    why: "Its spec is immutable, and each mark is either stamped by admission or the operator's.",
    otherwise: [
      {
        when: { byAnnotation: true },
        outcome: 'StartsNothing',
        why: 'There is none yet; the annotation stands.',
      },
    ],
  },
  {
    id: 'kill-switch-self-release',
    what: 'Ask for release without the right to, as a ServiceAccount, without a reason, or as the one who engaged',
    paths: [path(GROUP, ['killswitches'], change)],
    reach: ['gitops', 'admin', 'releaser'],
    outcome: 'Denied',
    why: 'A release is asked for by a second person with the verb release.',
    otherwise: [
      {
        when: { byAnnotation: true },
        outcome: 'StartsNothing',
        why: 'There is no KillSwitch to release yet.',
      },
    ],
  },
  {
    id: 'kill-switch-release',
    what: 'Ask for release as a second person with the right to',
    paths: [path(GROUP, ['killswitches'], ['patch'])],
    reach: ['releaser'],
    outcome: 'StartsNothing',
    why: 'That is what the role is for. The request is stamped and seen; the fence stands until an operator lifts it.',
  },
  {
    id: 'kill-switch-forge',
    what: 'Create a KillSwitch that is half-way released, in another name, or owned by something',
    paths: [path(GROUP, ['killswitches'], ['create'])],
    reach: ['gitops', 'admin', 'killer'],
    outcome: 'Denied',
    why: 'A new KillSwitch is engaged by who asks, and bears none of the marks.',
  },
  {
    id: 'kill-switch-create',
    what: 'Create another KillSwitch',
    paths: [path(GROUP, ['killswitches'], ['create'])],
    reach: ['gitops', 'admin', 'killer'],
    outcome: 'StartsNothing',
    why: 'It stops more. Whoever engages can stop whatever runs in the namespaces where he may.',
  },
  {
    id: 'kill-switch-status',
    what: 'Write a false status of the KillSwitch',
    paths: [path(GROUP, ['killswitches/status'], change)],
    reach: ['gitops', 'admin'],
    outcome: 'StartsNothing',
    why: "Who doesn't hold the verb lift is refused. The fence doesn't look at it.",
  },
  {
    id: 'cluster-kill-switch',
    what: 'Create, edit, release or delete a ClusterKillSwitch, or write its status',
    paths: [path(GROUP, ['clusterkillswitches', 'clusterkillswitches/status'], all)],
    reach: clusterAdmin,
    outcome: 'StartsNothing',
    why: 'The KillSwitch of the automation stands by itself. A ClusterKillSwitch lives by the same rules, and by the same policies.',
  },
  {
    id: 'guardrail-policy',
    what: 'Create, loosen or delete the GuardrailPolicy, or write its status',
    paths: [path(GROUP, ['guardrailpolicies', 'guardrailpolicies/status'], all)],
    reach: clusterAdmin,
    outcome: 'StartsNothing',
    why: 'A kill switch stands by itself and asks no policy.',
  },
  {
    id: 'annotation-removal',
    what: 'Take the annotation that engages away from a Workflow or an AutomationIdentity, or delete that',
    paths: [path(GROUP, ['automationworkflows', 'automationidentities'], [...change, ...remove])],
    reach: ['gitops', 'editor', 'admin'],
    outcome: 'StartsNothing',
    why: 'The KillSwitch stands by itself.',
    otherwise: [
      {
        when: { byAnnotation: true, wholeNamespace: false },
        outcome: 'Denied',
        why: 'Until a KillSwitch stands for it, the annotation is the fence.',
      },
      {
        when: { byAnnotation: true, wholeNamespace: true },
        outcome: 'StartsNothing',
        why: 'The annotation on the Namespace stands by itself.',
      },
    ],
  },
  {
    id: 'namespace-annotation-removal',
    what: 'Take the annotation that engages away from the Namespace',
    paths: [
      path('', ['namespaces', 'namespaces/status'], change),
      path('', ['namespaces/finalize'], ['update']),
    ],
    reach: clusterWide,
    outcome: 'StartsNothing',
    why: 'The KillSwitch stands by itself.',
    otherwise: [
      {
        when: { byAnnotation: true, wholeNamespace: true },
        outcome: 'Denied',
        why: 'Until a KillSwitch stands for it, the annotation is the fence.',
      },
      {
        when: { byAnnotation: true, wholeNamespace: false },
        outcome: 'StartsNothing',
        why: 'What engages is elsewhere.',
      },
    ],
  },
  {
    id: 'annotation-marks',
    what: 'Remove or falsify the marks of the engaging annotation',
    paths: [path(GROUP, ['automationworkflows', 'automationidentities'], change)],
    reach: ['gitops', 'editor', 'admin'],
    outcome: 'StartsNothing',
    why: 'The marks are a function of the annotation: admission writes them back, or refuses.',
  },
  {
    id: 'own-kinds',
    what: 'Write Workflows and AutomationIdentities, and their status',
    paths: [
      path(GROUP, ['automationworkflows', 'automationidentities'], all),
      path(GROUP, ['automationworkflows/status', 'automationidentities/status'], change),
    ],
    reach: ['gitops', 'editor', 'admin'],
    outcome: 'StartsNothing',
    why: 'The fence goes by the name, whatever the Workflow says, and whether there is one. Nothing is granted while the kill stands.',
  },
  {
    id: 'approval',
    what: 'Decide on a Workflow, or change decisions',
    paths: [path(GROUP, ['approvals'], all)],
    reach: ['gitops', 'admin'],
    outcome: 'StartsNothing',
    why: 'An approval lets a pod start that waits at its gate; the fence refuses to lift that, too.',
  },
  {
    id: 'revision',
    what: 'Forge a revision, change one or its status, or delete it',
    paths: [
      path(GROUP, ['workflowrevisions'], all),
      path(GROUP, ['workflowrevisions/status'], change),
    ],
    reach: ['gitops', 'admin'],
    outcome: 'StartsNothing',
    why: 'A revision says what ran, and starts nothing. It is written by who holds the verb record alone, and never changed.',
  },
  {
    id: 'access-review',
    what: 'Record an access review, change one, or delete it',
    paths: [path(GROUP, ['accessreviews'], all)],
    reach: ['gitops', 'admin'],
    outcome: 'StartsNothing',
    why: 'A review gives nothing back while the kill stands. It is made by a person with the verb review, and never changed.',
  },
  {
    id: 'evidence',
    what: 'Write false evidence, change it, or take it away',
    paths: [path(GROUP, ['evidencesegments'], all)],
    reach: ['gitops', 'admin'],
    outcome: 'StartsNothing',
    why: "Who doesn't hold the verb record is refused; cluster-admin holds it, and what he forges or takes away is found by the signed heads that stand elsewhere.",
  },
  {
    id: 'namespace',
    what: 'Delete the namespace, or take its label environment away',
    paths: [
      path('', ['namespaces'], [...change, 'delete']),
      path('', ['namespaces/status'], change),
      path('', ['namespaces/finalize'], ['update']),
    ],
    reach: clusterWide,
    outcome: 'Denied',
    why: 'The policies are bound by this label, and a new namespace has no KillSwitch.',
  },
  {
    id: 'namespace-other',
    what: 'Create namespaces, or change others',
    paths: [path('', ['namespaces'], ['create'])],
    reach: clusterWide,
    outcome: 'StartsNothing',
    why: 'A ServiceAccount belongs to its namespace.',
  },
  {
    id: 'permission-bind',
    what: "Bind the automation's ServiceAccount, or a group that it belongs to, to a role",
    paths: [path(rbac, ['rolebindings'], write)],
    reach: ['gitops', 'admin'],
    outcome: 'Denied',
    why: 'The operator alone gives an identity rights in its namespace, while it is killed too. Whoever holds every verb can forge the label by which its bindings are known, and bind from elsewhere; both are reported.',
  },
  {
    id: 'permission',
    what: 'Change a role that the automation is bound to, or take bindings away',
    paths: [path(rbac, ['roles', 'rolebindings'], all)],
    reach: ['gitops', 'admin'],
    outcome: 'Detected',
    why: 'Nothing starts by it. Whatever a ServiceAccount may do beyond its declaration is reported as ExcessPermissions, with the binding.',
  },
  {
    id: 'cluster-permission',
    what: 'Give oneself the verbs of the operator, or any other',
    paths: [path(rbac, ['clusterroles', 'clusterrolebindings'], all)],
    reach: clusterAdmin,
    outcome: 'OutOfScope',
    why: 'cluster-admin holds every verb already. Everybody else can grant only what he holds. What reaches an identity by a ClusterRoleBinding is reported as ExcessPermissions.',
  },
  {
    id: 'policy',
    what: 'Take away or change the admission policies',
    paths: [
      path(
        'admissionregistration.k8s.io',
        [
          'validatingadmissionpolicies',
          'validatingadmissionpolicies/status',
          'validatingadmissionpolicybindings',
          'mutatingadmissionpolicies',
          'mutatingadmissionpolicybindings',
        ],
        all,
      ),
    ],
    reach: clusterAdmin,
    outcome: 'Detected',
    why: 'cluster-admin can. The operator asks the fence itself once a minute, and reports FenceLost.',
  },
  {
    id: 'webhook',
    what: 'Change requests by webhooks',
    paths: [
      path(
        'admissionregistration.k8s.io',
        ['mutatingwebhookconfigurations', 'validatingwebhookconfigurations'],
        all,
      ),
    ],
    reach: clusterAdmin,
    outcome: 'StartsNothing',
    why: 'The policies that refuse come after all that change a request.',
  },
  {
    id: 'kinds',
    what: 'Take away our kinds, or serve them from elsewhere',
    paths: [
      path(
        'apiextensions.k8s.io',
        ['customresourcedefinitions', 'customresourcedefinitions/status'],
        all,
      ),
      path('apiregistration.k8s.io', ['apiservices', 'apiservices/status'], all),
    ],
    reach: clusterAdmin,
    outcome: 'OutOfScope',
    why: "cluster-admin can. Policies whose parameters aren't served refuse; the probe no longer answers by the policy's name, and that is reported.",
  },
  {
    id: 'egress',
    what: 'Open the network to pods that are left',
    paths: [
      path('networking.k8s.io', ['networkpolicies', 'ingresses', 'ingresses/status'], all),
      path('', ['services', 'services/status', 'endpoints'], all),
      path('discovery.k8s.io', ['endpointslices'], all),
    ],
    reach: writers,
    outcome: 'Detected',
    why: 'NetworkPolicies add up. Those that widen the allowlist are reported, the pods are deleted, and where the network plug-in has policies that deny, one does. Outside of dev and test, who lacks the verb `widen` is refused.',
  },
  {
    id: 'node',
    what: 'Make room for a pod from before the kill, which still waits',
    paths: [
      path('', ['nodes', 'nodes/status'], all),
      path('', ['persistentvolumes', 'persistentvolumes/status'], all),
      path('', ['persistentvolumeclaims', 'persistentvolumeclaims/status'], all),
      path(
        'resource.k8s.io',
        [
          'deviceclasses',
          'resourceclaims',
          'resourceclaims/status',
          'resourceclaimtemplates',
          'resourceslices',
        ],
        all,
      ),
      path(
        'storage.k8s.io',
        [
          'csidrivers',
          'csinodes',
          'csistoragecapacities',
          'storageclasses',
          'volumeattachments',
          'volumeattachments/status',
          'volumeattributesclasses',
        ],
        all,
      ),
      path('scheduling.k8s.io', ['priorityclasses'], all),
      path('node.k8s.io', ['runtimeclasses'], all),
    ],
    reach: writers,
    outcome: 'OutOfScope',
    why: 'As with binding: a pod that was admitted before the kill can start until an operator deletes it.',
  },
  {
    id: 'rest',
    what: 'Write what has nothing to do with pods or credentials',
    paths: [
      path('', ['configmaps', 'events', 'limitranges'], all),
      path('', ['resourcequotas', 'resourcequotas/status'], all),
      path('events.k8s.io', ['events'], all),
      path('coordination.k8s.io', ['leases'], all),
      path('policy', ['poddisruptionbudgets', 'poddisruptionbudgets/status'], all),
      path(
        'networking.k8s.io',
        ['ingressclasses', 'ipaddresses', 'servicecidrs', 'servicecidrs/status'],
        all,
      ),
      path(
        'flowcontrol.apiserver.k8s.io',
        [
          'flowschemas',
          'flowschemas/status',
          'prioritylevelconfigurations',
          'prioritylevelconfigurations/status',
        ],
        all,
      ),
    ],
    reach: ['controllers', 'gitops', 'editor', 'admin'],
    outcome: 'StartsNothing',
    why: 'No pod and no token comes of it. Kill work needs no Lease.',
  },
] as const satisfies readonly Threat[];

export type ThreatId = (typeof threats)[number]['id'];

/** What comes of a threat for those who have the right. */
export function answerOf(threat: Threat, engagement: Engagement): Answer {
  const fits = ({ byAnnotation, wholeNamespace }: Partial<Engagement>): boolean =>
    (byAnnotation ?? engagement.byAnnotation) === engagement.byAnnotation &&
    (wholeNamespace ?? engagement.wholeNamespace) === engagement.wholeNamespace;
  return threat.otherwise?.find(({ when }) => fits(when)) ?? threat;
}

/** A path that an API server serves. */
export interface ServedPath {
  group: string;
  resource: string;
  verb: string;
}

/** Threats that know a path. */
export function threatsOf({ group, resource, verb }: ServedPath): Threat[] {
  return threats.filter(({ paths }: Threat) =>
    paths.some(
      (known) =>
        known.group === group &&
        known.resources.includes(resource) &&
        known.verbs.some((other) => other === verb),
    ),
  );
}
