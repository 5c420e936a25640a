import { isIP } from 'node:net';

/** First and last number of something, both inside. */
export type Range = readonly [first: bigint, last: bigint];

const ipv4Count = 1n << 32n;

/** All addresses on one line: IPv4 first, IPv6 behind it. */
export const everyAddress: Range = [0n, ipv4Count + (1n << 128n) - 1n];

/** Where an address stands on that line; `undefined` for what is none. */
export function positionOf(address: string): bigint | undefined {
  switch (isIP(address)) {
    case 4:
      return ipv4Number(address);
    case 6:
      return ipv4Count + ipv6Number(address);
    default:
      return undefined;
  }
}

/** The addresses of a network, host bits or not; `undefined` for what is none. */
export function rangeOf(cidr: string): Range | undefined {
  const [address = '', length = ''] = cidr.split('/');
  const position = positionOf(address);
  const width = isIP(address) === 4 ? 32 : 128;
  if (position === undefined || !/^\d{1,3}$/.test(length) || Number(length) > width)
    return undefined;
  const free = BigInt(width - Number(length));
  const base = width === 32 ? 0n : ipv4Count;
  const first = base + (((position - base) >> free) << free);
  return [first, first + (1n << free) - 1n];
}

/** Whether an address is in a network. */
export function contains(cidr: string, address: string): boolean {
  const range = rangeOf(cidr);
  const position = positionOf(address);
  return (
    range !== undefined && position !== undefined && range[0] <= position && position <= range[1]
  );
}

function ipv4Number(address: string): bigint {
  return address.split('.').reduce((sum, part) => sum * 256n + BigInt(part), 0n);
}

/** @param address that `isIP` takes for IPv6, zone and all */
function ipv6Number(address: string): bigint {
  const [head = '', tail] = (address.split('%')[0] ?? '').split('::');
  const first = groupsOf(head);
  const last = groupsOf(tail ?? '');
  const middle = tail === undefined ? 0 : 8 - first.length - last.length;
  return [...first, ...Array.from({ length: middle }, () => 0n), ...last].reduce(
    (sum, group) => (sum << 16n) + group,
    0n,
  );
}

function groupsOf(text: string): bigint[] {
  if (text === '') return [];
  return text.split(':').flatMap((group) => {
    if (!group.includes('.')) return [BigInt(`0x${group}`)];
    const number = ipv4Number(group);
    return [number >> 16n, number & 0xffffn];
  });
}
