import type {
  LabelSelector,
  NetworkPolicy,
  NetworkPolicyPeer,
  NetworkPolicyPort,
} from '../../api/objects.ts';
import { everyAddress, positionOf, rangeOf, type Range } from './addresses.ts';
import type { Connection } from './evaluate.ts';
import { namespaceNameLabel, type EgressRule } from './rules.ts';

/*
 * Sets of connections, as boxes: what a rule of a policy allows is a box for each of its peers and
 * protocols, with a side for each thing that it asks about. Subtracting boxes answers whether one
 * policy allows more than others do, of all connections at once and without trying any.
 */

/** One side: numbers in ranges, or texts, either exactly those or all but those. */
type Side =
  | { readonly ranges: readonly Range[] }
  | { readonly values: ReadonlySet<string>; readonly isAllBut: boolean };

/** A side that isn't there is unbounded. Empty boxes don't exist. */
export type Box = ReadonlyMap<string, Side>;

/** The value of a label that isn't there; no label has it. */
const absent = '\u0000';

const kinds = ['pod', 'outside'] as const;
const protocols = ['TCP', 'UDP', 'SCTP'] as const;
const everyPort: Range = [1n, 65_535n];

const only = (...values: string[]): Side => ({ values: new Set(values), isAllBut: false });
const allBut = (...values: string[]): Side => ({ values: new Set(values), isAllBut: true });
const pods: Box = new Map([['kind', only('pod')]]);

/** Everything that a side could be. */
function wholeOf(name: string): Side {
  switch (name) {
    case 'kind':
      return only(...kinds);
    case 'protocol':
      return only(...protocols);
    case 'address':
      return { ranges: [everyAddress] };
    case 'port':
      return { ranges: [everyPort] };
    case `namespace ${namespaceNameLabel}`:
      return allBut(absent);
    default:
      return allBut();
  }
}

/** What one rule of a policy allows. */
export function boxesOfRule({ to = [], ports = [] }: EgressRule, namespace: string): Box[] {
  const peers = to.length === 0 ? [new Map()] : to.flatMap((peer) => boxesOfPeer(peer, namespace));
  const ends = ports.length === 0 ? [new Map()] : boxesOfPorts(ports);
  return peers.flatMap((peer) => ends.flatMap((end) => intersection(peer, end) ?? []));
}

/** What all rules of these policies allow in the direction outwards. */
export function boxesOfPolicies(policies: readonly NetworkPolicy[]): Box[] {
  return policies.flatMap(({ metadata, spec }) =>
    (spec.egress ?? []).flatMap((rule) => boxesOfRule(rule, metadata.namespace ?? '')),
  );
}

function boxesOfPeer(
  { ipBlock, namespaceSelector, podSelector = {} }: NetworkPolicyPeer,
  namespace: string,
): Box[] {
  if (ipBlock !== undefined) {
    // What can't be read counts as much as it could be.
    const whole = { ranges: [rangeOf(ipBlock.cidr) ?? everyAddress] };
    const excepted = (ipBlock.except ?? []).flatMap((network) => {
      const range = rangeOf(network);
      return range === undefined ? [] : [range];
    });
    const address = difference(whole, { ranges: excepted });
    return isEmpty(address) ? [] : [new Map([['address', address]])];
  }
  const space = namespaceSelector ?? { matchLabels: { [namespaceNameLabel]: namespace } };
  const parts = [pods, ...sidesOf('namespace', space), ...sidesOf('pod', podSelector)];
  const box = parts.reduce<Box | undefined>(
    (sum, part) => (sum === undefined ? undefined : intersection(sum, part)),
    new Map(),
  );
  return box === undefined ? [] : [box];
}

/** A box for each requirement of a selector. */
function sidesOf(of: string, { matchLabels = {}, matchExpressions = [] }: LabelSelector): Box[] {
  const side = (key: string, value: Side): Box => new Map([[`${of} ${key}`, value]]);
  return [
    ...Object.entries(matchLabels).map(([key, value]) => side(key, only(value))),
    ...matchExpressions.map(({ key, operator, values = [] }) => {
      switch (operator) {
        case 'In':
          return side(key, only(...values));
        case 'NotIn':
          return side(key, allBut(...values));
        case 'Exists':
          return side(key, allBut(absent));
        default:
          return side(key, only(absent));
      }
    }),
  ];
}

/** All numbers of a protocol are one box; each name is one, which only pods have. */
function boxesOfPorts(ports: readonly NetworkPolicyPort[]): Box[] {
  const boxes: Box[] = [];
  for (const [protocol, some] of Map.groupBy(ports, ({ protocol: of = 'TCP' }) => of)) {
    const ranges = some.flatMap(({ port, endPort }): Range[] => {
      if (port === undefined) return [everyPort];
      return typeof port === 'string' ? [] : [[BigInt(port), BigInt(endPort ?? port)]];
    });
    if (ranges.length > 0) {
      boxes.push(
        new Map([
          ['protocol', only(protocol)],
          ['port', { ranges: joined(ranges) }],
        ]),
      );
    }
    const names = some.flatMap(({ port }) => (typeof port === 'string' ? [port] : []));
    if (names.length > 0) {
      boxes.push(new Map([...pods, ['protocol', only(protocol)], ['port name', only(...names)]]));
    }
  }
  return boxes;
}

/** How much may be computed; who asks several times shares it, and it goes down. */
export interface Budget {
  /** About a tenth of a microsecond each. */
  steps: number;
}

/** Of a comparison that cuts, beside what its ranges cost. */
const stepsOfCut = 20;

/**
 * What is in some of the boxes and in none of the others. Where the budget ends, what is left by
 * then is the answer: too much rather than too little.
 */
export function subtract(
  boxes: readonly Box[],
  others: readonly Box[],
  budget: Budget = { steps: 1_000_000 },
): Box[] {
  return boxes.flatMap((box) => {
    let pieces: Box[] = [box];
    for (const other of others) {
      if (pieces.length === 0 || budget.steps <= 0) break;
      budget.steps -= pieces.length;
      if (pieces.every((piece) => isApart(piece, other))) continue;
      budget.steps -= pieces.length * (stepsOfCut + sizeOf(box) * sizeOf(other));
      pieces = pieces.flatMap((piece) => without(piece, other));
    }
    return pieces;
  });
}

/** Whether two boxes are so far apart that a look at the ends of their sides tells it. */
function isApart(a: Box, b: Box): boolean {
  for (const [name, side] of b) {
    const mine = a.get(name);
    if (mine === undefined) continue;
    if ('ranges' in mine && 'ranges' in side) {
      const [first, last] = endsOf(mine.ranges);
      const [from, to] = endsOf(side.ranges);
      if (last < from || to < first) return true;
    } else if (isEmpty(commonOf(mine, side))) return true;
  }
  return false;
}

/** Ranges stand in their order. */
function endsOf(ranges: readonly Range[]): Range {
  return [ranges[0]?.[0] ?? 0n, ranges.at(-1)?.[1] ?? 0n];
}

/** How many ranges its longest side has. */
function sizeOf(box: Box): number {
  let size = 1;
  for (const side of box.values()) {
    if ('ranges' in side) size = Math.max(size, side.ranges.length);
  }
  return size;
}

/** Side by side: what is outside of the other box on this one, and inside on all before. */
function without(box: Box, other: Box): Box[] {
  const outside: Box[] = [];
  let inside = box;
  for (const [name, limit] of other) {
    const side = inside.get(name) ?? wholeOf(name);
    const common = commonOf(side, limit);
    if (isEmpty(common)) return [box];
    const rest = difference(side, limit);
    if (!isEmpty(rest)) outside.push(new Map([...inside, [name, rest]]));
    inside = new Map([...inside, [name, common]]);
  }
  return outside;
}

function intersection(a: Box, b: Box): Box | undefined {
  const box = new Map(a);
  for (const [name, side] of b) {
    const common = commonOf(a.get(name) ?? wholeOf(name), side);
    if (isEmpty(common)) return undefined;
    box.set(name, common);
  }
  return box;
}

function commonOf(a: Side, b: Side): Side {
  if ('ranges' in a && 'ranges' in b) {
    return {
      ranges: a.ranges.flatMap(([first, last]) =>
        b.ranges.flatMap(([from, to]): Range[] => {
          const range: Range = [first > from ? first : from, last < to ? last : to];
          return range[0] <= range[1] ? [range] : [];
        }),
      ),
    };
  }
  if (!('values' in a && 'values' in b)) throw new TypeError('sides of two kinds');
  if (a.isAllBut && b.isAllBut) return { values: a.values.union(b.values), isAllBut: true };
  if (a.isAllBut) return { values: b.values.difference(a.values), isAllBut: false };
  return {
    values: b.isAllBut ? a.values.difference(b.values) : a.values.intersection(b.values),
    isAllBut: false,
  };
}

function difference(a: Side, b: Side): Side {
  if ('ranges' in a && 'ranges' in b) {
    let rest = [...a.ranges];
    for (const [from, to] of b.ranges) {
      rest = rest.flatMap(([first, last]): Range[] => [
        ...(first < from ? [[first, last < from ? last : from - 1n] as const] : []),
        ...(to < last ? [[first > to ? first : to + 1n, last] as const] : []),
      ]);
    }
    return { ranges: rest };
  }
  if (!('values' in b)) throw new TypeError('sides of two kinds');
  return commonOf(a, { values: b.values, isAllBut: !b.isAllBut });
}

function isEmpty(side: Side): boolean {
  return 'ranges' in side ? side.ranges.length === 0 : !side.isAllBut && side.values.size === 0;
}

/** Overlapping and adjacent ranges as one, so that a list of ports is few pieces. */
function joined(ranges: readonly Range[]): Range[] {
  const result: Range[] = [];
  for (const range of ranges.toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))) {
    const last = result.at(-1);
    if (last === undefined || last[1] + 1n < range[0]) result.push(range);
    else if (last[1] < range[1]) result[result.length - 1] = [last[0], range[1]];
  }
  return result;
}

/** Whether a connection is in a box. */
export function isInside(box: Box, { other, protocol, port, portName }: Connection): boolean {
  const { address, pod } = other;
  return [...box].every(([name, side]) => {
    if ('ranges' in side) {
      const number =
        name === 'port' ? BigInt(port) : address === undefined ? undefined : positionOf(address);
      return (
        number !== undefined &&
        side.ranges.some(([first, last]) => first <= number && number <= last)
      );
    }
    const value = (() => {
      switch (name) {
        case 'kind':
          return pod === undefined ? 'outside' : 'pod';
        case 'protocol':
          return protocol;
        case 'port name':
          return portName ?? absent;
        default: {
          const [of = '', key = ''] = name.split(' ');
          const labels =
            of === 'pod'
              ? pod?.labels
              : { [namespaceNameLabel]: pod?.namespace ?? '', ...pod?.namespaceLabels };
          return labels?.[key] ?? absent;
        }
      }
    })();
    return side.values.has(value) !== side.isAllBut;
  });
}
