import { describe, expect, it } from 'vitest';
import {
  afterLookup,
  graceMs,
  isOutside,
  maxAddresses,
  refreshAfterMs,
  resolvedOf,
  type KnownHost,
  type Lookup,
} from './resolved-hosts.ts';

const now = Date.UTC(2030, 0, 1);
const none = (): boolean => false;

function answer(...addresses: string[]): Lookup {
  return { answers: addresses.map((address) => ({ address, ttl: 60 })), failed: [] };
}

function after(...lookups: Lookup[]): KnownHost {
  let known = afterLookup(undefined, { answers: [], failed: [] }, none, now);
  for (const lookup of lookups) known = afterLookup(known, lookup, none, now);
  return known;
}

const addressesOf = (known: KnownHost): readonly string[] => resolvedOf(known)?.addresses ?? [];

describe('what a name may lead to', () => {
  it.each(['203.0.113.1', '8.8.8.8', '2001:db8::1', '2a00:1450::1'])('is %s', (address) => {
    expect(isOutside(address)).toBe(true);
  });

  it.each([
    '0.0.0.0',
    '10.1.2.3',
    '100.64.0.1',
    '127.0.0.1',
    '169.254.169.254',
    '172.31.255.255',
    '192.168.1.1',
    '224.0.0.1',
    '255.255.255.255',
    '::',
    '::1',
    '::ffff:169.254.169.254',
    '::ffff:8.8.8.8',
    '64:ff9b::a9fe:a9fe',
    '2001::1',
    '2002:a9fe:a9fe::1',
    'fd00:ec2::254',
    'fe80::1',
    'fe80::1%eth0',
    'ff02::1',
    'a name',
    '',
  ])('is not %s', (address) => {
    expect(isOutside(address)).toBe(false);
  });

  it('is nothing of the cluster itself', () => {
    const known = afterLookup(undefined, answer('203.0.113.1'), () => true, now);
    expect(addressesOf(known)).toEqual([]);
    expect(known.problem).toContain('leads to 203.0.113.1');
  });
});

describe('what is known of a name', () => {
  it('is every answer, and what was one a while ago', () => {
    const first = afterLookup(undefined, answer('203.0.113.1'), none, now);
    const second = afterLookup(first, answer('203.0.113.2'), none, now + graceMs - 1);
    expect(addressesOf(second)).toEqual(['203.0.113.1', '203.0.113.2']);
    expect(addressesOf(afterLookup(second, answer('203.0.113.2'), none, now + graceMs))).toEqual([
      '203.0.113.2',
    ]);
  });

  it('is as it was where nobody answers, or with nothing that may be allowed', () => {
    const known = after(answer('203.0.113.1', '2001:db8::1'));
    for (const lookup of [
      { answers: [], failed: [4, 6] as const, why: 'no server' },
      answer(),
      answer('127.0.0.1'),
    ]) {
      const later = afterLookup(known, lookup, none, now + 100 * graceMs);
      expect(resolvedOf(later)).toEqual(resolvedOf(known));
      expect(later.problem).not.toBe(undefined);
    }
  });

  it('keeps the family that could not be asked', () => {
    const known = after(answer('203.0.113.1', '2001:db8::1'));
    const lookup = { ...answer('203.0.113.2'), failed: [6] as const };
    const later = afterLookup(known, lookup, none, now + 2 * graceMs);
    expect(addressesOf(later)).toEqual(['2001:db8::1', '203.0.113.2']);
  });

  it('takes the good of an answer, and tells of the rest', () => {
    const known = after(answer('203.0.113.1', '10.0.0.1'));
    expect(addressesOf(known)).toEqual(['203.0.113.1']);
    expect(known.problem).toContain('10.0.0.1');
  });

  it('has as many addresses as there is room for, the latest ones', () => {
    const many = Array.from({ length: 100 }, (_, index) => `203.0.113.${index}`);
    const known = afterLookup(after(answer(...many)), answer('198.51.100.1'), none, now + 1);
    expect(addressesOf(known)).toHaveLength(maxAddresses);
    expect(addressesOf(known)).toContain('198.51.100.1');
  });

  it('changed when an address came or went', () => {
    const known = after(answer('203.0.113.1'));
    expect(afterLookup(known, answer('203.0.113.1'), none, now + 1_000).since).toBe(known.since);
    expect(afterLookup(known, answer('203.0.113.2'), none, now + 1_000).since).not.toBe(
      known.since,
    );
  });

  it.each([
    [0, 30_000],
    [60, 60_000],
    [86_400, 300_000],
  ])('with a time to live of %i s is asked for again after %i ms', (ttl, ms) => {
    const answers = [{ address: '203.0.113.1', ttl }];
    expect(refreshAfterMs({ answers, failed: [] })).toBe(ms);
    expect(refreshAfterMs({ answers, failed: [6] })).toBe(30_000);
  });
});
