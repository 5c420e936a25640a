import { describe, expect, it } from 'vitest';
import { silentLogger } from '../observability/logger.ts';
import { resources } from '../api/resources.ts';
import { Anchors, readAnchors } from './anchors.ts';
import { fingerprintOf, isSigned, signHead } from './head.ts';
import { MemoryClient, MemoryCluster } from './memory-client.testing.ts';
import { publicKeys, SigningKeys } from './signing-keys.ts';

const namespace = 'automation-guardrails';
const day = 86_400_000;

function keysOf(cluster: MemoryCluster, clock: () => number): SigningKeys {
  return new SigningKeys({
    client: new MemoryClient(cluster),
    namespace,
    rotateAfterMs: day,
    clock,
  });
}

describe('the signing key', () => {
  it('is one for all replicas, is replaced when it is old, and the old public half stays', async () => {
    const cluster = new MemoryCluster(namespace);
    let now = Date.UTC(2026, 0, 1);
    const clock = (): number => now;
    const [one, two] = [keysOf(cluster, clock), keysOf(cluster, clock)];
    const [first, same] = await Promise.all([one.current(), two.current()]);
    expect(same.publicKey).toBe(first.publicKey);
    const name = { chain: 'finance/invoice', incarnation: 'u' };
    const head = signHead(name, { sequence: 1, hash: 'x' }, '2026-01-01T00:00:00Z', first);
    expect(isSigned(name, head)).toBe(true);

    expect(await one.rotateIfDue()).toBe(fingerprintOf(first.publicKey));
    now += 2 * day;
    const fingerprint = await one.rotateIfDue();
    const second = await two.current();
    expect(fingerprintOf(second.publicKey)).toBe(fingerprint);
    expect(second.publicKey).not.toBe(first.publicKey);
    expect(await publicKeys(new MemoryClient(cluster), namespace)).toEqual(
      expect.arrayContaining([first.publicKey, second.publicKey]),
    );
    expect(isSigned(name, head)).toBe(true);
  });
});

describe('anchors', () => {
  it('hold the last head of each chain and day, outlive a failure, and go when they are old', async () => {
    const cluster = new MemoryCluster(namespace);
    let now = Date.UTC(2026, 0, 1, 12);
    const clock = (): number => now;
    const key = await keysOf(cluster, clock).current();
    let isBroken = true;
    const client = new MemoryClient(cluster, () => (isBroken ? 'refused' : 'none'));
    const options = { logger: silentLogger(), namespace, retentionMs: 3 * day, clock };
    const anchors = new Anchors({ client, ...options });
    const chains = Array.from({ length: 20 }, (_, index) => `finance/w${index}`);
    const note = (sequence: number): void => {
      for (const chain of chains) {
        const name = { chain, incarnation: 'u' };
        anchors.note(name, signHead(name, { sequence, hash: 'x' }, 't', key));
      }
    };
    note(1);
    await anchors.write();
    isBroken = false;
    note(2);
    await anchors.write();
    now += day;
    note(3);
    await anchors.write();
    const reader = new MemoryClient(cluster);
    const [chain = ''] = chains;
    const sequences = async (): Promise<number[]> =>
      (await readAnchors(reader, namespace, [chain]))
        .map(({ head }) => head.sequence)
        .toSorted((a, b) => a - b);
    expect(await sequences()).toEqual([2, 3]);
    expect(await readAnchors(reader, namespace, chains)).toHaveLength(40);
    now += 2.5 * day;
    await anchors.expire(new AbortController().signal);
    expect(await sequences()).toEqual([3]);
    const { writes } = cluster;
    await anchors.write();
    expect(cluster.writes).toBe(writes);
    expect(await reader.list(resources.configMaps, { namespace })).not.toHaveLength(0);
  });
});
