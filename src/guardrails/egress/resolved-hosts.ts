import { BlockList, isIP } from 'node:net';
import { timestamp } from '../../api/conditions.ts';
import type { ResolvedHost } from './rules.ts';

/** An address as a DNS server gave it. */
export interface Answer {
  address: string;
  /** Seconds for which it may be kept. */
  ttl: number;
}

/** What one look at both families of addresses brought. */
export interface Lookup {
  answers: readonly Answer[];
  /** Families about which nothing is known now: no server answered. */
  failed: readonly (4 | 6)[];
  /** Why, where that is known. */
  why?: string;
}

/** What is known of a host. */
export interface KnownHost {
  /** When each address was last among the answers; milliseconds since the epoch. */
  seen: ReadonlyMap<string, number>;
  /** When the addresses last changed; RFC 3339. */
  since: string;
  /** What is wrong, in words; the addresses are the last ones known. */
  problem?: string;
}

/** Addresses change behind a name, and clients and caches keep the old ones for a while. */
export const graceMs = 10 * 60_000;
/** More addresses than one name has; a name that gives others at every look keeps the latest. */
export const maxAddresses = 64;
/** Bounds of the time between two looks, whatever the server says. */
export const minRefreshMs = 30_000;
const maxRefreshMs = 5 * 60_000;

/**
 * What isn't the Internet (IANA's registries of special-purpose addresses). A name leads there by
 * mistake, or because whoever owns it wants to reach what is inside (DNS rebinding).
 */
const inside = new BlockList();
for (const [network, length] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
] as const) {
  inside.addSubnet(network, length, 'ipv4');
}
// Ways to an IPv4 address, inside of what is else the Internet.
inside.addSubnet('2001::', 32, 'ipv6');
inside.addSubnet('2002::', 16, 'ipv6');
const internet6 = new BlockList();
internet6.addSubnet('2000::', 3, 'ipv6');

/** Whether an address is one of the Internet, as far as that can be told from it. */
export function isOutside(address: string): boolean {
  switch (isIP(address)) {
    case 4:
      return !inside.check(address, 'ipv4');
    case 6:
      return internet6.check(address, 'ipv6') && !inside.check(address, 'ipv6');
    default:
      return false;
  }
}

/**
 * What is known after a look. Addresses that weren't among the answers stay for {@link graceMs};
 * where a family could not be asked, or nothing that may be allowed came, what was known stays.
 *
 * @param isRefused addresses of the cluster itself
 * @param now milliseconds since the epoch
 */
export function afterLookup(
  known: KnownHost | undefined,
  { answers, failed, why }: Lookup,
  isRefused: (address: string) => boolean,
  now: number,
): KnownHost {
  const allowed = answers.filter(({ address }) => isOutside(address) && !isRefused(address));
  const before = known?.seen ?? new Map<string, number>();
  const isNothing = allowed.length === 0;
  const kept = [...before].map(([address, at]): [string, number] => {
    const isUnknown = isNothing || failed.some((family) => isIP(address) === family);
    return [address, isUnknown ? now : at];
  });
  const latest = new Map([
    ...kept.filter(([, at]) => now - at < graceMs),
    ...allowed.map(({ address }): [string, number] => [address, now]),
  ]);
  const seen = new Map(
    [...latest]
      .toSorted(([a, atA], [b, atB]) => atB - atA || (a < b ? -1 : 1))
      .slice(0, maxAddresses),
  );
  const isSame = before.size === seen.size && [...seen.keys()].every((key) => before.has(key));
  const problem = problemOf(answers, allowed, failed, why);
  return {
    seen,
    since: isSame && known !== undefined ? known.since : timestamp(now),
    ...(problem !== undefined && { problem }),
  };
}

function problemOf(
  answers: readonly Answer[],
  allowed: readonly Answer[],
  failed: readonly number[],
  why: string | undefined,
): string | undefined {
  const refused = answers.filter((answer) => !allowed.includes(answer));
  if (refused.length > 0) {
    return `leads to ${refused
      .slice(0, 3)
      .map(({ address }) => address)
      .join(', ')}, which is inside and isn't allowed`;
  }
  if (allowed.length > 0) return undefined;
  return failed.length === 0 && why === undefined ? 'has no address' : (why ?? 'no answer');
}

/** When to look again; milliseconds from now. */
export function refreshAfterMs({ answers, failed }: Lookup): number {
  if (failed.length > 0 || answers.length === 0) return minRefreshMs;
  const ttl = Math.min(...answers.map((answer) => answer.ttl)) * 1_000;
  return Math.min(Math.max(ttl, minRefreshMs), maxRefreshMs);
}

/** As policies and status have it; `undefined` where no address is known. */
export function resolvedOf({ seen, since }: KnownHost): ResolvedHost | undefined {
  return seen.size === 0 ? undefined : { addresses: [...seen.keys()].toSorted(), since };
}

/** What stood in a policy, as if it had been seen just now: nobody knows when it was. */
export function knownFrom({ addresses, since }: ResolvedHost, now: number): KnownHost {
  return { seen: new Map(addresses.map((address) => [address, now])), since };
}
