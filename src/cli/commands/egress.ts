import { isDeepStrictEqual } from 'node:util';
import { label } from '../../api/names.ts';
import type { KubeObject, NetworkPolicy, NetworkPolicyPort, Pod } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { EgressEntry, Workflow } from '../../api/workflow.ts';
import { isolating, type Labels } from '../../guardrails/egress/evaluate.ts';
import { lastKnown } from '../../guardrails/egress/named-peers.ts';
import {
  ciliumPartsOf,
  clusterPartOf,
  type ForeignPolicy,
  type ForeignRule,
} from '../../guardrails/egress/foreign-rules.ts';
import {
  clusterNetworkPolicy,
  isOfKind,
  type PlugInPolicy,
} from '../../guardrails/egress/plug-in.ts';
import {
  othersOfPlugIn,
  plugInKinds,
  seenPlugInResources,
} from '../../guardrails/egress/plug-in-policies.ts';
import {
  dnsRule,
  egressRulesOf,
  type EgressRule,
  type NamedPeers,
} from '../../guardrails/egress/rules.ts';
import { peerWords, portWords } from '../../guardrails/egress/widened.ts';
import { some } from '../../guardrails/wording.ts';
import { isMadeFor } from '../../runtime/applier.ts';
import { isNotFound } from '../../runtime/errors.ts';
import {
  exit,
  isForbidden,
  outputOptions,
  required,
  UsageError,
  type Command,
  type Session,
} from '../command.ts';
import { print, type Columns } from '../print.ts';

const form = 'egress NAME';

/** What the pods of a Workflow reach, whoever allowed it. */
export const egressCommand: Command = {
  name: 'egress',
  usage: [[form, 'where the pods of a Workflow may connect, and who allowed it']],
  options: outputOptions,
  run: async (session) => {
    const name = required(session.names[0], form);
    const { client, namespace } = session;
    const [workflow, policies] = await Promise.all([
      client.get(resources.workflows, { namespace, name }),
      client.list(resources.networkPolicies, { namespace }),
    ]);
    if (workflow === undefined) {
      throw new UsageError(`there is no Workflow ${name} in namespace ${namespace}`);
    }
    const pods = await labelsOfPods(session, name);
    const [plugIn, others] = await Promise.all([
      plugInOf(session, workflow),
      plugInOfOthers(session),
    ]);
    const view = { workflow, policies, pods, plugIn, others };
    if (isOpen(view)) {
      session.stderr(
        `Warning: no NetworkPolicy selects the pods of ${name}: they reach everything. See kubectl describe awf ${name} -n ${namespace}.`,
      );
      return exit.failed;
    }
    print(session, egressRows(view), columns, 'Nothing: its NetworkPolicies are closed.');
    return exit.ok;
  },
};

/** Labels of the pods, as far as the user may see them; all carry the one of their identity. */
async function labelsOfPods(session: Session, name: string): Promise<Labels[]> {
  const own = { [label.identity]: name };
  try {
    const pods: Pod[] = await session.client.list(resources.pods, {
      namespace: session.namespace,
      fieldSelector: `spec.serviceAccountName=${name},status.phase!=Succeeded,status.phase!=Failed`,
    });
    return [own, ...pods.map(({ metadata }) => metadata.labels ?? {})];
  } catch (error) {
    if (!isForbidden(error)) throw error;
    session.stderr(
      'You may not list pods: policies of others that select some of them alone are not shown.',
    );
    return [own];
  }
}

/** The policy that allows its hosts, as far as the user may see it. */
async function plugInOf(session: Session, workflow: Workflow): Promise<PlugInPolicy | undefined> {
  if ((workflow.spec.egress ?? []).every(({ host }) => host === undefined)) return undefined;
  for (const kind of plugInKinds) {
    try {
      const { metadata } = kind.deny(workflow);
      const found = await session.client.get(kind.resource, metadata);
      if (found !== undefined && isMadeFor(found, workflow)) return found;
    } catch (error) {
      if (!isForbidden(error)) throw error;
      session.stderr(
        `You may not get ${kind.resource.plural}: hosts that one allows are not shown.`,
      );
    }
  }
  return undefined;
}

/** Policies of network plug-ins that may select the pods, as far as the user may see them. */
async function plugInOfOthers({ client, namespace, stderr }: Session): Promise<PlugInOfOthers> {
  const unread: string[] = [];
  const readable = async <T>(what: string, read: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await read();
    } catch (error) {
      // No plug-in brings that kind.
      if (isNotFound(error)) return undefined;
      if (!isForbidden(error)) throw error;
      unread.push(what);
      return undefined;
    }
  };
  const lists = await Promise.all(
    seenPlugInResources.map(async (resource) => {
      const of = resource.namespaced ? { namespace } : {};
      return (await readable(resource.plural, () => client.list(resource, of))) ?? [];
    }),
  );
  const space = lists.every((list) => list.length === 0)
    ? undefined
    : await readable('the labels of the namespace', () =>
        client.get(resources.namespaces, { name: namespace }),
      );
  if (unread.length > 0) {
    stderr(
      `You may not read ${some(unread)}: what others allow by them is not shown, if it exists.`,
    );
  }
  return {
    policies: lists.flatMap((list, index) =>
      list.flatMap((policy) => {
        const kind = seenPlugInResources[index]?.kind ?? '';
        return othersOfPlugIn(policy).length === 0 ? [] : [{ kind, policy }];
      }),
    ),
    namespaceLabels: space?.metadata.labels ?? {},
  };
}

/** Policies of others, of kinds that only some network plug-ins bring. */
interface PlugInOfOthers {
  policies: readonly { kind: string; policy: KubeObject }[];
  namespaceLabels: Labels;
}

export interface EgressView {
  workflow: Workflow;
  /** All of the namespace. */
  policies: readonly NetworkPolicy[];
  /** What allows its hosts, where the network plug-in has policies that do. */
  plugIn?: PlugInPolicy | undefined;
  others?: PlugInOfOthers;
  /** Labels of its pods. */
  pods: readonly Labels[];
}

export interface EgressRow {
  destination: string;
  ports: string;
  /** Names of the policies that allow it. */
  source: string;
  reason: string;
  /** Team of the Workflow; empty where nobody of it listed the destination. */
  owner: string;
  /** RFC 3339; empty where it doesn't end. */
  expires: string;
}

const columns: Columns<EgressRow> = {
  DESTINATION: ({ destination }) => destination,
  PORTS: ({ ports }) => ports,
  SOURCE: ({ source }) => source,
  REASON: ({ reason }) => reason,
  OWNER: ({ owner }) => owner,
  EXPIRES: ({ expires }) => expires,
};

/** Whether a pod of it is isolated by no policy at all. */
function isOpen({ workflow, policies, pods }: EgressView): boolean {
  const { namespace = '' } = workflow.metadata;
  return pods.some((labels) => isolating(policies, { namespace, labels }, 'Egress').length === 0);
}

/** One row for each destination that stands in a policy, listed ones first. */
export function egressRows(view: EgressView): EgressRow[] {
  const { workflow, policies, pods, plugIn } = view;
  const { namespace = '' } = workflow.metadata;
  const holding = policies.filter((policy) =>
    pods.some((labels) => isolating([policy], { namespace, labels }, 'Egress').length > 0),
  );
  const rows = holding.flatMap((policy) => {
    const isOwn = isMadeFor(policy, workflow);
    const named = lastKnown(policy);
    return (policy.spec.egress ?? []).flatMap((rule) =>
      rowsOf(rule, policy, isOwn ? explain(rule, workflow, named) : ofOthers),
    );
  });
  if (plugIn !== undefined) rows.push(...hostRows(plugIn, workflow));
  rows.push(...rowsOfPlugIns(view));
  // The same of several policies is one row.
  const merged = new Map<string, EgressRow>();
  for (const { source, ...row } of rows) {
    const key = JSON.stringify(row);
    const before = merged.get(key)?.source;
    merged.set(key, { ...row, source: before === undefined ? source : `${before}, ${source}` });
  }
  const rank = ({ owner }: EgressRow): number => (owner === ofOthers.owner ? 1 : 0);
  return [...merged.values()].toSorted((a, b) => rank(a) - rank(b));
}

function hostRows(policy: PlugInPolicy, { spec }: Workflow): EgressRow[] {
  const kind = plugInKinds.find((one) => isOfKind(one, policy));
  return (spec.egress ?? []).flatMap((entry) => {
    const { host, ports = [], reason, expires = '' } = entry;
    if (host === undefined || kind?.grants(policy, entry) !== true) return [];
    return [
      {
        destination: host,
        ports: ports.length === 0 ? 'all' : ports.map(wordsOfPort).join(', '),
        source: policy.metadata.name,
        reason,
        owner: spec.owner?.team ?? '-',
        expires,
      },
    ];
  });
}

/** What policies of others allow that only some network plug-ins bring. */
function rowsOfPlugIns({ workflow, others, pods }: EgressView): EgressRow[] {
  if (others === undefined) return [];
  const { name, namespace = '' } = workflow.metadata;
  const { namespaceLabels } = others;
  const subjects = pods.map((podLabels) => ({
    namespace,
    namespaceLabels,
    serviceAccountName: name,
    podLabels,
  }));
  return others.policies.flatMap(({ kind, policy }) => {
    const parts =
      kind === clusterNetworkPolicy.resource.kind ? clusterPartsOf(policy) : ciliumPartsOf(policy);
    const source = { metadata: { name: `${kind} ${policy.metadata.name}` } };
    return parts
      .filter(({ selects }) => subjects.some(selects))
      .flatMap(({ rules }) => rules)
      .flatMap(({ rules, hosts, beyond }) => [
        ...rules.flatMap((rule) => rowsOf(rule, source, ofOthers)),
        ...hosts.map((host) => rowOf(host.name, host.ports, source)),
        ...beyond.map((what) => rowOf(what, [], source)),
      ]);
  });
}

/** What accepts; what denies takes away, and is nowhere to be seen in a list of destinations. */
function clusterPartsOf(policy: KubeObject): ForeignPolicy<ForeignRule>[] {
  const part = clusterPartOf(policy);
  const accepts = part?.rules.filter(({ action }) => action === 'Accept') ?? [];
  return part === undefined ? [] : [{ ...part, rules: accepts }];
}

function rowOf(
  destination: string,
  ports: readonly NetworkPolicyPort[],
  { metadata }: KubeObject,
): EgressRow {
  return {
    destination,
    ports: ports.length === 0 ? 'all' : ports.map(portWords).join(', '),
    source: metadata.name,
    ...ofOthers,
  };
}

function wordsOfPort({
  protocol,
  port,
  endPort,
}: NonNullable<EgressEntry['ports']>[number]): string {
  return portWords({ protocol, port, ...(endPort !== undefined && { endPort }) });
}

type Explanation = Pick<EgressRow, 'reason' | 'owner' | 'expires'>;

const ofOthers: Explanation = { reason: 'not of the allowlist', owner: '', expires: '' };

/** The entries of the allowlist that a rule stands for. */
function explain(rule: EgressRule, { spec }: Workflow, named: NamedPeers): Explanation {
  const isDNS = [dnsRule, ...(named.DNS ?? [])].some((one) => isDeepStrictEqual(one, rule));
  const entries = (spec.egress ?? []).filter((entry) =>
    egressRulesOf(entry, named).some((one) => isDeepStrictEqual(one, rule)),
  );
  const reasons = entries.map(({ reason }) => reason);
  if (isDNS) reasons.unshift('every automation reaches DNS');
  return {
    reason: reasons.length === 0 ? 'no longer listed' : [...new Set(reasons)].join('; '),
    owner: spec.owner?.team ?? '-',
    // Where one of them doesn't end, the destination doesn't.
    expires: entries.every(({ expires }) => expires !== undefined)
      ? (entries
          .map(({ expires = '' }) => expires)
          .toSorted()
          .at(-1) ?? '')
      : '',
  };
}

function rowsOf(
  { to = [], ports = [] }: EgressRule,
  { metadata }: KubeObject,
  explanation: Explanation,
): EgressRow[] {
  const destinations = to.length === 0 ? ['everywhere'] : to.map(peerWords);
  return destinations.map((destination) => ({
    destination,
    ports: ports.length === 0 ? 'all' : ports.map(portWords).join(', '),
    source: metadata.name,
    ...explanation,
  }));
}
