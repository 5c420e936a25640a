import { z } from 'zod';
import {
  cidr,
  conditionsSchema,
  count,
  dnsLabel,
  dnsSubdomainPattern,
  duration,
  generation,
  labelSelector,
  rules,
  sentence,
  sha256,
  time,
  type ValidationRule,
} from './fields.ts';
import { holdsSchema } from './holds.ts';
import { limitsSchema, runsStatusSchema } from './limits.ts';
import type { KubeObject } from './objects.ts';
import { ownerSchema } from './owner.ts';

const target = z
  .object({
    group: z
      .enum(['apps', 'batch'])
      .meta({ description: 'API group of the kind: `apps` or `batch`.' }),
    kind: z.enum(['Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet', 'Job', 'CronJob']).meta({
      description:
        'Kind of the workload: Deployment, StatefulSet, DaemonSet or ReplicaSet of `apps`, Job or CronJob of `batch`. A ReplicaSet that belongs to a Deployment is not a target; name the Deployment.',
    }),
    name: z
      .string()
      .min(1)
      .max(63)
      .optional()
      .meta({
        description: 'Name of the workload. Exactly one of `name` and `selector`.',
        ...rules({
          rule: `self.matches('${dnsSubdomainPattern}')`,
          message:
            "the name of a target must be the name of a workload: lower-case letters, digits, '-' and '.'; to name several by their labels, write a selector",
        }),
      }),
    selector: labelSelector(
      "Selects workloads by their own labels (not their pods'). Exactly one of `name` and `selector`.",
    ).optional(),
  })
  .meta({
    description:
      'A workload, or several, that the automation consists of. Its pods must run as the ServiceAccount of the same name as the Workflow.',
    ...rules(
      {
        rule: 'has(self.name) != has(self.selector)',
        message: 'a target needs either a name or a selector: write exactly one of the two',
      },
      {
        rule: "(self.group == 'apps') == !(self.kind in ['Job', 'CronJob'])",
        message:
          "group and kind of a target don't belong together: Deployment, StatefulSet, DaemonSet and ReplicaSet are of group 'apps', Job and CronJob of group 'batch'",
      },
    ),
  });

const egressPort = z
  .object({
    port: z
      .int32()
      .min(1)
      .max(65_535)
      .meta({ description: 'The port, or the first one of a range up to `endPort`.' }),
    endPort: z
      .int32()
      .min(1)
      .max(65_535)
      .optional()
      .meta({ description: 'Last port of a range, inclusive. Not below `port`.' }),
    protocol: z
      .enum(['TCP', 'UDP', 'SCTP'])
      .default('TCP')
      .meta({ description: 'Transport protocol.' }),
  })
  .meta({
    description: 'A port, or a range of ports.',
    ...rules({
      rule: '!has(self.endPort) || self.endPort >= self.port',
      message: 'endPort must not be below port; write the first port of the range as port',
    }),
  });

/** Addresses at which clouds give credentials of the node to whoever asks. */
export const metadataAddresses = ['169.254.169.254', 'fd00:ec2::254', 'fd20:ce::254'] as const;

/** The shortest prefix of a network in the allowlist; what is wider is as good as anywhere. */
export const shortestPrefix = { ipv4: 8, ipv6: 16 } as const;

const isNetwork = 'has(self.cidr) && isCIDR(self.cidr)';

/** What entries of both directions consist of. */
const peerFields = {
  cidr: cidr(
    'cidr',
    'Network, IPv4 or IPv6; `/32` or `/128` for one address. Exactly one of `cidr`, `namespace` and `peer`.',
  ).optional(),
  except: z
    .array(cidr('an entry of except', 'Network inside `cidr`.'))
    .min(1)
    .max(16)
    .optional()
    .meta({
      description: 'Networks inside `cidr` that are left out.',
      'x-kubernetes-list-type': 'atomic',
    }),
  namespace: dnsLabel(
    'namespace',
    'Name of a namespace whose pods are meant. It must not be of another environment. Exactly one of `cidr`, `namespace` and `peer`.',
  ).optional(),
  podSelector: labelSelector(
    'Narrows `namespace` to those of its pods that carry these labels. Without it, all of its pods.',
  ).optional(),
  expires: time(
    'When the entry ends; from then on it allows nothing, and the Workflow says so. Without it, it holds until it is removed.',
  ).optional(),
};

function peerRules(what: string, ...others: readonly string[]): readonly ValidationRule[] {
  const fields = ['cidr', 'namespace', 'peer', ...others];
  return [
    {
      rule: `[${fields.map((field) => `has(self.${field})`).join(', ')}].filter(named, named).size() == 1`,
      message: `an ${what} entry names exactly one peer: either cidr, or namespace (with or without podSelector), or ${['peer', ...others].join(', or ')}; write one entry for each peer`,
    },
    {
      rule: '!has(self.podSelector) || has(self.namespace)',
      message:
        'podSelector needs namespace beside it: name the namespace whose pods it selects, also where that is the namespace of the Workflow',
    },
    {
      rule: '!has(self.except) || has(self.cidr)',
      message: 'except needs cidr beside it: it takes networks out of that one',
    },
    {
      rule: '!has(self.except) || !has(self.cidr) || !isCIDR(self.cidr) || self.except.all(network, !isCIDR(network) || (cidr(self.cidr).containsCIDR(network) && cidr(network).prefixLength() > cidr(self.cidr).prefixLength()))',
      message: 'every entry of except must be a smaller network inside cidr',
    },
    {
      rule: `!(${isNetwork}) || cidr(self.cidr).prefixLength() >= (cidr(self.cidr).ip().family() == 4 ? ${shortestPrefix.ipv4} : ${shortestPrefix.ipv6})`,
      message: `cidr is as good as anywhere: the widest networks are /${shortestPrefix.ipv4} for IPv4 and /${shortestPrefix.ipv6} for IPv6; list those that the automation needs`,
    },
  ];
}

/** DNS name of at least two labels in lower case; one `*` may stand for whatever is before them. */
const hostPattern =
  '^([*][.])?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?[.])+[a-z]([-a-z0-9]{0,61}[a-z0-9])$';

const egressEntry = z
  .object({
    ...peerFields,
    host: z
      .string()
      .min(1)
      .max(253)
      .optional()
      .meta({
        description:
          'DNS name of a destination outside of the cluster, such as `api.example.com`, or `*.example.com` for the names with one label more (by ClusterNetworkPolicies: one or more). It takes a network plug-in that knows names, or `resolve`. Exactly one of `cidr`, `namespace`, `host` and `peer`.',
        ...rules({
          rule: `self.matches('${hostPattern}') && !self.matches('[.](svc|local|localhost)$')`,
          message:
            "host must be a DNS name outside of the cluster in lower case, such as 'api.example.com' or '*.example.com', without a dot at its end: write other scripts as punycode ('xn--…'), addresses as cidr, and what runs in the cluster as namespace",
        }),
      }),
    resolve: z.boolean().optional().meta({
      description:
        'Where no network plug-in knows names, the operator looks the addresses of `host` up and allows those. Who shares an address with it, as on a content delivery network, is allowed, too. Without it, the Workflow is held there.',
    }),
    peer: z.enum(['KubeAPI', 'DNS', 'SameNamespace']).optional().meta({
      description:
        "Something whose addresses the operator looks up and follows: `KubeAPI`, the cluster's API server; `DNS`, the cluster's DNS, which every automation reaches anyway; `SameNamespace`, all pods of the Workflow's namespace. Exactly one of `cidr`, `namespace`, `host` and `peer`.",
    }),
    ports: z.array(egressPort).min(1).max(32).optional().meta({
      description:
        'Ports that may be reached. Without it, all ports of the peer. `KubeAPI` and `DNS` bring their own.',
      'x-kubernetes-list-type': 'atomic',
    }),
    reason: sentence('reason', 'Why the automation needs this destination.'),
  })
  .meta({
    description: 'A destination that the automation may reach.',
    ...rules(
      ...peerRules('egress', 'host'),
      {
        rule: "!has(self.resolve) || !self.resolve || (has(self.host) && !self.host.startsWith('*'))",
        message:
          "resolve needs host beside it, and one without '*': there is no way to look up every name below another",
      },
      {
        rule: "!has(self.ports) || !has(self.peer) || self.peer == 'SameNamespace'",
        message: 'peer KubeAPI and peer DNS bring their own ports: leave ports out',
      },
      {
        rule: `!(${isNetwork}) || [${metadataAddresses.map((address) => `'${address}'`).join(', ')}].all(address, !cidr(self.cidr).containsIP(address) || (has(self.except) && self.except.exists(network, isCIDR(network) && cidr(network).containsIP(address))))`,
        message: `cidr contains the metadata address of a cloud (${metadataAddresses.join(', ')}), which hands out the node's credentials: take it out by except`,
      },
    ),
  });

/** How much harm an automation can do, and so how many people approve what it runs. */
export const risks = ['Low', 'Medium', 'High'] as const;

export type Risk = (typeof risks)[number];

/** Approvals that each risk asks for. */
export type Quorums = Readonly<Record<Risk, number>>;

/** What holds without a GuardrailPolicy. Admission has the same in CEL (`src/admission/approval.ts`). */
export const defaultQuorums: Quorums = { Low: 0, Medium: 1, High: 2 };

/** Approvals that anything may ask for at most. */
const maxApprovals = 8;

const change = z
  .object({
    version: z.string().max(128).optional().meta({
      description: 'The version, as people and pipelines call it.',
    }),
    reason: sentence('reason', 'Why it is changed.').optional(),
    requestedBy: z.string().max(256).optional().meta({
      description:
        'Who asked for it. Asserted by whoever writes it, not authenticated: who that was, admission stamps in the annotation `automationguardrails.dev/changed-by`. Who is named here approves nothing of it.',
    }),
    ticket: z.string().max(256).optional().meta({ description: 'Where it was discussed.' }),
    commit: z.string().max(128).optional().meta({
      description: 'The commit in Git that it comes from. Asserted, as the rest of this.',
    }),
  })
  .meta({ description: 'What is told to those who approve this version.' });

const approval = z
  .object({
    required: z.int32().min(0).max(maxApprovals).optional().meta({
      description:
        'Approvals that it needs, where that is more than its risk asks for; it never lowers that.',
    }),
    per: z.enum(['Revision', 'Run']).optional().meta({
      description:
        '`Revision` (the default): what is approved runs as often as it likes. `Run`: each Job, and each pod that belongs to none, is approved by itself, too, by at least one person.',
    }),
    timeout: duration(
      'timeout',
      'How long a run waits for its approval, with `per: Run`; then it is rejected. Default: 24 hours.',
    ).optional(),
  })
  .meta({
    description: 'Approval beyond what the risk asks for.',
    ...rules({
      rule: "!has(self.timeout) || (has(self.per) && self.per == 'Run')",
      message:
        'approval.timeout is how long a run waits: write per: Run beside it, or leave it out',
    }),
  });

const ingressEntry = z
  .object({
    ...peerFields,
    peer: z.enum(['KubeAPI', 'SameNamespace']).optional().meta({
      description:
        "Something whose addresses the operator looks up and follows: `KubeAPI`, the cluster's API server; `SameNamespace`, all pods of the Workflow's namespace. Exactly one of `cidr`, `namespace` and `peer`.",
    }),
    ports: z.array(egressPort).min(1).max(32).optional().meta({
      description: "Ports of the automation's pods that may be reached. Without it, all ports.",
      'x-kubernetes-list-type': 'atomic',
    }),
    reason: sentence('reason', 'Why this source needs to reach the automation.'),
  })
  .meta({
    description: 'A source that may connect to the pods of the automation.',
    ...rules(...peerRules('ingress')),
  });

export const workflowSpecSchema = z
  .object({
    description: z
      .string()
      .max(1024)
      .optional()
      .meta({ description: 'What the automation does, for people.' }),
    owner: ownerSchema.optional(),
    risk: z.enum(risks).optional().meta({
      default: 'Low',
      description:
        'How much harm it can do: `Low` needs no approval, `Medium` one, `High` two. Until everything that runs is approved, none of its new pods starts. Lowering it takes the verb `waive-approval`.',
    }),
    change: change.optional(),
    approval: approval.optional(),
    targets: z.array(target).min(1).max(256).meta({
      description: 'The workloads that the automation consists of.',
      'x-kubernetes-list-type': 'atomic',
    }),
    egress: z.array(egressEntry).max(128).optional().meta({
      description:
        'Destinations that the automation may reach. Everything else is denied, except DNS. Without any entry, only DNS is left.',
      'x-kubernetes-list-type': 'atomic',
    }),
    ingress: z.array(ingressEntry).max(64).optional().meta({
      description:
        'Sources that may connect to the pods of the automation. Without any entry, its pods accept no connections, other than those of their node.',
      'x-kubernetes-list-type': 'atomic',
    }),
    limits: limitsSchema.optional(),
  })
  .meta({
    description:
      'What runs, who owns it, where it may connect, how much harm it can do and so who approves it, and what a run may take.',
  });

export type WorkflowSpec = z.infer<typeof workflowSpecSchema>;
export type EgressEntry = z.infer<typeof egressEntry>;
export type IngressEntry = z.infer<typeof ingressEntry>;

const reached = z.enum(['Reached', 'Failed', 'Unknown']);

const egressProbeSchema = z.object({
  time: time('When it ended.'),
  denied: reached.meta({ description: 'Whether it reached what no policy allows.' }),
  allowed: reached.meta({ description: 'Whether it reached what a policy allows.' }),
});

/** What a pod found that tried whether NetworkPolicies are enforced. */
export type EgressProbe = z.infer<typeof egressProbeSchema>;

/** Parts of a revision that its status names: two specs, and as many workloads as targets. */
export const maxParts = 258;

export const workflowStatusSchema = z
  .object({
    observedGeneration: generation('`metadata.generation` that the status speaks of.'),
    conditions: conditionsSchema.exactOptional().meta({
      ...conditionsSchema.meta(),
      description:
        '`Ready`; `Held`, whose message lists what is missing; `Approved`, whether what runs is approved as far as that is needed; `Stopped`, while the kill switch is engaged; `LimitBreached`, where something is counted; `PolicyViolation`, where the GuardrailPolicy sets ceilings; `RequesterAllowed`, whether who asked for it may do so; `DutiesOverlap` while one person has several duties; `EgressDeclared`, `EgressEnforced`, `EgressWidened` and `UnusualDestinations`.',
    }),
    holds: holdsSchema.exactOptional(),
    revision: z
      .object({
        digest: sha256(
          'Digest of everything that runs: this spec, the spec of the AutomationIdentity, and the pod template of each target. Approvals name it; any change makes another.',
        ),
        required: count('Approvals that it needs.').exactOptional(),
        approvers: z
          .object({
            groups: z
              .array(z.string().max(256).meta({ description: 'Name of a group.' }))
              .max(8)
              .meta({ description: 'The groups.', 'x-kubernetes-list-type': 'atomic' }),
            oneOfEach: z
              .boolean()
              .exactOptional()
              .meta({ description: 'Whether each of them has to approve.' }),
          })
          .exactOptional()
          .meta({ description: 'Groups whose approvals count; absent where everybody counts.' }),
        approved: z
          .object({
            digest: sha256('Its digest.'),
            parts: z
              .array(
                z
                  .object({
                    name: z.string().max(128).meta({
                      description:
                        '`Workflow`, `AutomationIdentity`, or kind and name of a target.',
                    }),
                    digest: sha256('Digest of this part.'),
                  })
                  .meta({ description: 'A part of what runs.' }),
              )
              .max(maxParts)
              .meta({
                description: 'What it consisted of.',
                'x-kubernetes-list-type': 'atomic',
              }),
          })
          .exactOptional()
          .meta({
            description:
              'What was approved last. Its pods may start while a change waits for approval.',
          }),
      })
      .exactOptional()
      .meta({ description: 'What is to be approved; absent where nothing has to be.' }),
    targets: z
      .object({
        total: count('Workloads that the targets name.'),
        running: count('Workloads among them that are not paused.'),
        stopped: count('Workloads among them that are paused.'),
        missing: count("Targets by name that don't exist."),
      })
      .exactOptional()
      .meta({ description: 'The targets, counted by state.' }),
    egressProbe: egressProbeSchema.exactOptional().meta({
      description:
        'The last result of `kubectl guardrails probe`: a pod of the automation tried a destination that is allowed, and one that is not.',
    }),
    resolvedHosts: z
      .array(
        z
          .object({
            host: z.string().max(253).meta({ description: 'The name.' }),
            addresses: count('Addresses that are allowed for it.'),
            lastChanged: time('When these last changed.').exactOptional(),
          })
          .meta({ description: 'A host that the operator looks up.' }),
      )
      .max(128)
      .exactOptional()
      .meta({
        description: 'Hosts of `spec.egress` whose addresses the operator looks up.',
        'x-kubernetes-list-type': 'atomic',
      }),
    runs: runsStatusSchema.exactOptional(),
    requester: z.string().max(64).exactOptional().meta({
      description:
        'Digest of what was asked about who changed the spec: his name, his groups and the rights. The same is not asked again.',
    }),
  })
  .meta({ description: 'What the operator found and did. Written by the operator.' });

export type WorkflowStatus = z.infer<typeof workflowStatusSchema>;

/** Groups whose approvals count. */
export type ApproverGroups = NonNullable<NonNullable<WorkflowStatus['revision']>['approvers']>;

/** A part of what runs, and its digest. */
export type RevisionPart = NonNullable<
  NonNullable<WorkflowStatus['revision']>['approved']
>['parts'][number];

/** An automation: what runs, who owns it, and within which bounds. */
export interface Workflow extends KubeObject {
  spec: WorkflowSpec;
  status?: WorkflowStatus;
}
