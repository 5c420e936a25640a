import { z } from 'zod';
import {
  cidr,
  conditionsSchema,
  count,
  dnsLabel,
  dnsSubdomainPattern,
  generation,
  labelSelector,
  rules,
  sentence,
} from './fields.ts';
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

const egressEntry = z
  .object({
    cidr: cidr(
      'cidr',
      'Network that may be reached, IPv4 or IPv6; `/32` or `/128` for one address. Exactly one of `cidr` and `namespace`.',
    ).optional(),
    except: z
      .array(cidr('an entry of except', 'Network inside `cidr`.'))
      .min(1)
      .max(16)
      .optional()
      .meta({
        description: 'Networks inside `cidr` that may not be reached all the same.',
        'x-kubernetes-list-type': 'atomic',
      }),
    namespace: dnsLabel(
      'namespace',
      'Name of a namespace whose pods may be reached. Exactly one of `cidr` and `namespace`.',
    ).optional(),
    podSelector: labelSelector(
      'Narrows `namespace` to those of its pods that carry these labels. Without it, all of its pods.',
    ).optional(),
    ports: z.array(egressPort).min(1).max(32).optional().meta({
      description: 'Ports that may be reached. Without it, all ports of the peer.',
      'x-kubernetes-list-type': 'atomic',
    }),
    reason: sentence('reason', 'Why the automation needs this destination.'),
  })
  .meta({
    description: 'A destination that the automation may reach.',
    ...rules(
      {
        rule: 'has(self.cidr) != has(self.namespace)',
        message:
          'an egress entry names exactly one peer: either cidr, or namespace (with or without podSelector); write one entry for each peer',
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
    ),
  });

export const workflowSpecSchema = z
  .object({
    description: z
      .string()
      .max(1024)
      .optional()
      .meta({ description: 'What the automation does, for people.' }),
    owner: ownerSchema.optional(),
    targets: z.array(target).min(1).max(256).meta({
      description: 'The workloads that the automation consists of.',
      'x-kubernetes-list-type': 'atomic',
    }),
    egress: z.array(egressEntry).max(128).optional().meta({
      description:
        'Destinations that the automation may reach. Everything else is denied, except DNS. Without any entry, only DNS is left.',
      'x-kubernetes-list-type': 'atomic',
    }),
    limits: limitsSchema.optional(),
  })
  .meta({ description: 'What runs, who owns it, and where it may connect.' });

export type WorkflowSpec = z.infer<typeof workflowSpecSchema>;
export type EgressEntry = z.infer<typeof egressEntry>;

export const workflowStatusSchema = z
  .object({
    observedGeneration: generation('`metadata.generation` that the status speaks of.'),
    conditions: conditionsSchema.exactOptional().meta({
      ...conditionsSchema.meta(),
      description:
        '`Ready`; `Held`, whose message lists what is missing; `Stopped`, while the kill switch is engaged; and `LimitBreached`, where something is counted.',
    }),
    targets: z
      .object({
        total: count('Workloads that the targets name.'),
        running: count('Workloads among them that are not paused.'),
        stopped: count('Workloads among them that are paused.'),
        missing: count("Targets by name that don't exist."),
      })
      .exactOptional()
      .meta({ description: 'The targets, counted by state.' }),
    runs: runsStatusSchema.exactOptional(),
  })
  .meta({ description: 'What the operator found and did. Written by the operator.' });

export type WorkflowStatus = z.infer<typeof workflowStatusSchema>;

/** An automation: what runs, who owns it, and where it may connect. */
export interface Workflow extends KubeObject {
  spec: WorkflowSpec;
  status?: WorkflowStatus;
}
