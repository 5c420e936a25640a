import type {
  KubeObject,
  LabelSelector,
  NetworkPolicyPeer,
  NetworkPolicyPort,
} from '../../api/objects.ts';
import { fieldOf } from '../requirements.ts';
import { rangeOf } from './addresses.ts';
import { meets } from './pod-selector.ts';
import { namespaceNameLabel, type EgressRule } from './rules.ts';

/*
 * What policies of network plug-ins let pods reach, in the terms of NetworkPolicies as far as these
 * have any. Others wrote them, perhaps for a version that we don't know: whatever can't be told
 * exactly counts as much as it could be. Total: it takes whatever the API server has stored.
 */

/** What one rule speaks of. */
export interface ForeignRule {
  /** No rule is nothing; one without peers is everywhere. */
  rules: readonly EgressRule[];
  /** What NetworkPolicies have no terms for, in words. */
  beyond: readonly string[];
  /** Names that it allows, and the ports on which. */
  hosts: readonly { name: string; ports: readonly NetworkPolicyPort[] }[];
  /** It speaks of exactly that, and of nothing less. */
  isExact: boolean;
}

const nothing: ForeignRule = { rules: [], beyond: [], hosts: [], isExact: true };

/** What a selector of a plug-in's kind is asked about. */
export interface Subject {
  namespace: string;
  namespaceLabels: Readonly<Record<string, string>>;
  serviceAccountName: string;
  podLabels: Readonly<Record<string, string>>;
}

/*
 * `cilium.io/v2`, as of docs.cilium.io/en/stable/security/policy/language and its API, `EgressRule`:
 * rules add up, and those of NetworkPolicies with them.
 */

/** Labels that Cilium derives, without their source. */
const ciliumNamespace = 'io.kubernetes.pod.namespace';
const ciliumNamespaceLabels = 'io.cilium.k8s.namespace.labels.';
const ciliumServiceAccount = 'io.cilium.k8s.policy.serviceaccount';

interface Requirement {
  key: string;
  operator: string;
  values: readonly string[];
}

/** What a policy has for some pods. */
export interface ForeignPolicy<T extends ForeignRule> {
  selects: (subject: Subject) => boolean;
  rules: readonly T[];
}

/** The parts of a CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy that let pods out. */
export function ciliumPartsOf(policy: KubeObject): ForeignPolicy<ForeignRule>[] {
  const { namespace } = policy.metadata;
  return [fieldOf(policy, 'spec'), ...listOf(fieldOf(policy, 'specs'))].flatMap((spec) => {
    const selector = fieldOf(spec, 'endpointSelector');
    const rules = listOf(fieldOf(spec, 'egress')).map((rule) => ciliumRule(rule, namespace));
    // Without that selector it is for nodes.
    if (selector === undefined || selector === null || rules.length === 0) return [];
    return [
      {
        selects: (subject) =>
          (namespace === undefined || namespace === subject.namespace) &&
          ciliumSelects(selector, subject),
        rules,
      },
    ];
  });
}

function ciliumSelects(selector: unknown, subject: Subject): boolean {
  const { namespace, namespaceLabels, serviceAccountName, podLabels } = subject;
  const derived = Object.entries(namespaceLabels).map(
    ([key, value]) => [`${ciliumNamespaceLabels}${key}`, value] as const,
  );
  const labels: Readonly<Record<string, string>> = {
    ...podLabels,
    ...Object.fromEntries(derived),
    [ciliumNamespace]: namespace,
    [ciliumServiceAccount]: serviceAccountName,
  };
  return requirementsOf(selector).every(({ key, operator, values }) => {
    const name = withoutSource(key);
    // Of another source, or derived from what we don't know: it may be so.
    if (name === undefined || (name.startsWith('io.cilium.') && labels[name] === undefined)) {
      return true;
    }
    return meets(labels[name], { operator, values, ifUnknown: true });
  });
}

function ciliumRule(rule: unknown, namespace: string | undefined): ForeignRule {
  const ports = ciliumPortsOf(listOf(fieldOf(rule, 'toPorts')));
  const lists = new Map(
    Object.entries(typeof rule === 'object' && rule !== null ? rule : {}).flatMap(
      ([field, value]: [string, unknown]) =>
        Array.isArray(value) && value.length > 0 ? [[field, listOf(value)] as const] : [],
    ),
  );
  const peers: NetworkPolicyPeer[] = [];
  const beyond: string[] = [];
  const hosts: { name: string; ports: readonly NetworkPolicyPort[] }[] = [];
  let isEverywhere = !lists.has('icmps') && lists.has('toPorts');
  for (const [field, values] of lists) {
    // What only narrows: the ports, what is looked at on them, and labels that peers have to have.
    if (field === 'toPorts' || field === 'toRequires') continue;
    if (field === 'icmps') {
      beyond.push('ICMP');
      continue;
    }
    isEverywhere = false;
    for (const value of values) {
      switch (field) {
        case 'toCIDR':
          peers.push({ ipBlock: { cidr: String(value) } });
          break;
        case 'toCIDRSet': {
          const cidr = fieldOf(value, 'cidr');
          if (typeof cidr !== 'string') beyond.push('a group of networks');
          else
            peers.push({ ipBlock: { cidr, except: listOf(fieldOf(value, 'except')).map(String) } });
          break;
        }
        case 'toEndpoints': {
          const peer = ciliumPeer(value, namespace);
          if (peer === undefined) beyond.push('what is no pod');
          else peers.push(peer);
          break;
        }
        case 'toEntities': {
          const entity = entityOf(String(value));
          if (entity === 'everywhere') isEverywhere = true;
          else if (entity === undefined) beyond.push(`the entity ${String(value)}`);
          else peers.push(...entity.peers);
          beyond.push(...(entity === undefined || entity === 'everywhere' ? [] : entity.beyond));
          break;
        }
        case 'toFQDNs': {
          const name = fieldOf(value, 'matchName') ?? fieldOf(value, 'matchPattern');
          hosts.push({ name: String(name), ports });
          break;
        }
        default:
          beyond.push(field);
      }
    }
  }
  const rules: EgressRule[] = isEverywhere
    ? [withPorts({}, ports)]
    : peers.length === 0
      ? []
      : [withPorts({ to: peers }, ports)];
  return { ...nothing, rules, beyond: [...new Set(beyond)], hosts };
}

type Entity = 'everywhere' | { peers: readonly NetworkPolicyPeer[]; beyond: readonly string[] };

function entityOf(name: string): Entity | undefined {
  const v4: NetworkPolicyPeer = { ipBlock: { cidr: '0.0.0.0/0' } };
  const v6: NetworkPolicyPeer = { ipBlock: { cidr: '::/0' } };
  switch (name) {
    case 'all':
      return 'everywhere';
    case 'world':
      return { peers: [v4, v6], beyond: [] };
    case 'world-ipv4':
      return { peers: [v4], beyond: [] };
    case 'world-ipv6':
      return { peers: [v6], beyond: [] };
    case 'cluster':
      return { peers: [{ namespaceSelector: {} }], beyond: ['nodes of the cluster'] };
    case 'none':
      return { peers: [], beyond: [] };
    default:
      return undefined;
  }
}

/** @returns `undefined` where it selects something else than pods */
function ciliumPeer(
  selector: unknown,
  namespace: string | undefined,
): NetworkPolicyPeer | undefined {
  const ofNamespace: Requirement[] = [];
  const ofPod: Requirement[] = [];
  for (const requirement of requirementsOf(selector)) {
    const key = withoutSource(requirement.key);
    if (key === undefined) return undefined;
    if (key === ciliumNamespace) ofNamespace.push({ ...requirement, key: namespaceNameLabel });
    else if (key.startsWith(ciliumNamespaceLabels)) {
      ofNamespace.push({ ...requirement, key: key.slice(ciliumNamespaceLabels.length) });
      // What Cilium derives besides is known of no pod: without it, the selector is wider.
    } else if (!key.startsWith('io.cilium.')) ofPod.push({ ...requirement, key });
  }
  const isOwnNamespace = namespace !== undefined && ofNamespace.length === 0;
  return {
    podSelector: selectorOf(ofPod),
    ...(!isOwnNamespace && { namespaceSelector: selectorOf(ofNamespace) }),
  };
}

/** Key without the source of labels of Kubernetes or of any; `undefined` for another source. */
function withoutSource(key: string): string | undefined {
  const [source = '', ...rest] = key.split(':');
  if (rest.length === 0) return key;
  return source === 'k8s' || source === 'any' ? rest.join(':') : undefined;
}

/** None for all ports. For `ANY`, SCTP is left out: Cilium has it only where it is switched on. */
function ciliumPortsOf(entries: readonly unknown[]): NetworkPolicyPort[] {
  const all = entries.flatMap((entry) => {
    const ports = listOf(fieldOf(entry, 'ports'));
    return ports.length === 0 ? [undefined] : ports;
  });
  const result = all.flatMap((one): NetworkPolicyPort[] => {
    const protocol: unknown = fieldOf(one, 'protocol') ?? 'ANY';
    const port = portOf(fieldOf(one, 'port'));
    const endPort = fieldOf(one, 'endPort');
    return protocolsOf(protocol).map((of) => ({
      protocol: of,
      ...(port !== undefined && { port }),
      ...(typeof endPort === 'number' && endPort > 0 && { endPort }),
    }));
  });
  const isAll = all.some(
    (one) =>
      portOf(fieldOf(one, 'port')) === undefined && (fieldOf(one, 'protocol') ?? 'ANY') === 'ANY',
  );
  return isAll ? [] : result;
}

type Protocol = (typeof protocols)[number];
const protocols = ['TCP', 'UDP', 'SCTP'] as const;

/** One that NetworkPolicies don't know counts as all of theirs. */
function protocolsOf(name: unknown): readonly Protocol[] {
  if (name === 'ANY') return ['TCP', 'UDP'];
  const known = protocols.find((one) => one === name);
  return known === undefined ? protocols : [known];
}

function portOf(value: unknown): number | string | undefined {
  const text = typeof value === 'number' || typeof value === 'string' ? String(value) : '';
  if (text === '' || text === '0') return undefined;
  return /^\d+$/.test(text) ? Number(text) : text;
}

/*
 * `policy.networking.k8s.io/v1alpha2`: of the tier `Admin`, the first rule decides that matches, in
 * the order of priorities and then of the list, before any NetworkPolicy is asked. Policies of the
 * tier `Baseline` say nothing to pods that a NetworkPolicy selects, as those of automations are.
 */

/** One rule of a ClusterNetworkPolicy, with what decides which comes first. */
export interface TierRule extends ForeignRule {
  action: string;
  priority: number;
}

/** Rules for the egress of pods, in their order; `undefined` where it has none that decide. */
export function clusterPartOf(policy: KubeObject): ForeignPolicy<TierRule> | undefined {
  const spec = fieldOf(policy, 'spec');
  const rules = listOf(fieldOf(spec, 'egress'));
  if (fieldOf(spec, 'tier') !== 'Admin' || rules.length === 0) return undefined;
  const priority = Number(fieldOf(spec, 'priority') ?? 0);
  return {
    selects: (subject) => clusterSelects(fieldOf(spec, 'subject'), subject),
    rules: rules.map((rule) => ({
      ...clusterRule(rule),
      action: String(fieldOf(rule, 'action')),
      priority,
    })),
  };
}

function clusterSelects(of: unknown, { namespace, namespaceLabels, podLabels }: Subject): boolean {
  const labels = { ...namespaceLabels, [namespaceNameLabel]: namespace };
  const isSelected = (selector: unknown, among: Readonly<Record<string, string>>): boolean =>
    requirementsOf(selector).every(({ key, operator, values }) =>
      meets(among[key], { operator, values, ifUnknown: true }),
    );
  const namespaces = fieldOf(of, 'namespaces');
  if (namespaces !== undefined) return isSelected(namespaces, labels);
  const pods = fieldOf(of, 'pods');
  return (
    isSelected(fieldOf(pods, 'namespaceSelector'), labels) &&
    isSelected(fieldOf(pods, 'podSelector'), podLabels)
  );
}

function clusterRule(rule: unknown): ForeignRule {
  const known = new Set(['action', 'name', 'to', 'protocols']);
  const fields = Object.keys(typeof rule === 'object' && rule !== null ? rule : {});
  const { ports, isExact: arePortsExact } = clusterPortsOf(listOf(fieldOf(rule, 'protocols')));
  const peers: NetworkPolicyPeer[] = [];
  const beyond: string[] = [];
  const hosts: { name: string; ports: readonly NetworkPolicyPort[] }[] = [];
  for (const peer of listOf(fieldOf(rule, 'to'))) {
    const [networks, namespaces, pods, names] = [
      'networks',
      'namespaces',
      'pods',
      'domainNames',
    ].map((field) => fieldOf(peer, field));
    if (networks !== undefined) {
      peers.push(...listOf(networks).map((cidr) => ({ ipBlock: { cidr: String(cidr) } })));
    } else if (namespaces !== undefined) {
      peers.push({ namespaceSelector: selectorOf(requirementsOf(namespaces)) });
    } else if (pods !== undefined) {
      peers.push({
        namespaceSelector: selectorOf(requirementsOf(fieldOf(pods, 'namespaceSelector'))),
        podSelector: selectorOf(requirementsOf(fieldOf(pods, 'podSelector'))),
      });
    } else if (names !== undefined) {
      hosts.push(...listOf(names).map((name) => ({ name: String(name), ports })));
    } else beyond.push(fieldOf(peer, 'nodes') === undefined ? 'peers of an unknown kind' : 'nodes');
  }
  return {
    rules: peers.length === 0 ? [] : [withPorts({ to: peers }, ports)],
    beyond: [...new Set(beyond)],
    hosts,
    isExact:
      arePortsExact &&
      fields.every((field) => known.has(field)) &&
      peers.every(({ ipBlock }) => ipBlock === undefined || rangeOf(ipBlock.cidr) !== undefined),
  };
}

function clusterPortsOf(entries: readonly unknown[]): {
  ports: NetworkPolicyPort[];
  isExact: boolean;
} {
  let isExact = true;
  const ports = entries.flatMap((one): NetworkPolicyPort[] => {
    for (const name of protocols) {
      const of = fieldOf(one, name.toLowerCase());
      if (of === undefined) continue;
      const destination = fieldOf(of, 'destinationPort');
      const number = fieldOf(destination, 'number');
      const start = fieldOf(fieldOf(destination, 'range'), 'start');
      const end = fieldOf(fieldOf(destination, 'range'), 'end');
      if (typeof number === 'number') return [{ protocol: name, port: number }];
      if (typeof start === 'number' && typeof end === 'number') {
        return [{ protocol: name, port: start, endPort: end }];
      }
      // A source port, or what a later version may say of it, only narrows.
      isExact &&= of !== null && Object.keys(of).length === 0;
      return [{ protocol: name }];
    }
    const named = fieldOf(one, 'destinationNamedPort');
    isExact = false;
    const port = typeof named === 'string' ? { port: named } : {};
    return protocols.map((protocol) => ({ protocol, ...port }));
  });
  return { ports, isExact };
}

function withPorts(rule: EgressRule, ports: readonly NetworkPolicyPort[]): EgressRule {
  return ports.length === 0 ? rule : { ...rule, ports: [...ports] };
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function requirementsOf(selector: unknown): Requirement[] {
  const labels: unknown = fieldOf(selector, 'matchLabels') ?? {};
  return [
    ...Object.entries(typeof labels === 'object' && labels !== null ? labels : {}).map(
      ([key, value]) => ({ key, operator: 'In', values: [String(value)] }),
    ),
    ...listOf(fieldOf(selector, 'matchExpressions')).map((expression) => ({
      key: String(fieldOf(expression, 'key')),
      operator: String(fieldOf(expression, 'operator')),
      values: listOf(fieldOf(expression, 'values')).map(String),
    })),
  ];
}

function selectorOf(requirements: readonly Requirement[]): LabelSelector {
  const matchExpressions = requirements.map(({ key, operator, values }) => ({
    key,
    operator,
    ...(values.length > 0 && { values: [...values] }),
  }));
  return matchExpressions.length === 0 ? {} : { matchExpressions };
}
