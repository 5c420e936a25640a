import { generateKeyPairSync } from 'node:crypto';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { EvidenceSegmentSpec } from '../api/evidence-segment.ts';
import { digestOf } from '../api/digest.ts';
import { ChainWriter, type Committed } from './chain-writer.ts';
import { publicKeyOf, signHead, type SigningKey } from './head.ts';
import { MemoryClient, MemoryCluster } from './memory-client.testing.ts';
import { link, type ChainEnd } from './record.ts';
import { verifyChain, type Anchor } from './verify.ts';

const chain = 'finance/invoice';
const never = new AbortController().signal;

function newKey(): SigningKey {
  const { privateKey } = generateKeyPairSync('ed25519');
  return { privateKey, publicKey: publicKeyOf(privateKey) };
}

const key = newKey();
/** Every state in which the chain ever was: what somebody could roll back to. */
const history: EvidenceSegmentSpec[][] = [];
const anchors: Anchor[] = [];

function segments(): EvidenceSegmentSpec[] {
  return structuredClone(history.at(-1) ?? []);
}

beforeAll(async () => {
  const cluster = new MemoryCluster('finance');
  const writer = new ChainWriter({
    client: new MemoryClient(cluster),
    namespace: 'finance',
    name: 'invoice',
    signingKey: async () => Promise.resolve(key),
    limits: { segmentBytes: 2_000, segments: 100, retentionMs: 1e12, requireExport: false },
    clock: Date.now,
    onCommitted: ({ incarnation, head }: Committed) => anchors.push({ chain, incarnation, head }),
  });
  for (let turn = 0; turn < 10; turn++) {
    await writer.commit(
      async () =>
        Promise.resolve([
          {
            draft: {
              action: `Act${turn}`,
              outcome: 'Succeeded',
              actor: { name: 'alice', basis: 'asserted' },
            },
            subject: 'a',
            after: String(turn),
          },
        ]),
      never,
    );
    history.push(structuredClone(cluster.segments('finance', 'invoice')));
  }
});

describe('a chain', () => {
  it('proves itself while nobody touched it, in any order of segments, at every time', () => {
    for (const [turn, past] of history.entries()) {
      const known = anchors.filter(
        ({ head }) => head.sequence <= (past.at(-1)?.head.sequence ?? 0),
      );
      const { problems, records, anchored } = verifyChain(chain, past.toReversed(), {
        anchors: known,
        trustedKeys: [key.publicKey],
      });
      expect(problems).toEqual([]);
      expect(anchored).toBe(known.length);
      expect(records.filter(({ action }) => action.startsWith('Act'))).toHaveLength(turn + 1);
    }
    expect(segments().length).toBeGreaterThan(2);
  });

  it('shows a flip of any character of any field', () => {
    const all = segments();
    const texts = all.flatMap((segment, position) =>
      leavesOf(segment).map((path) => ({ position, path })),
    );
    fc.assert(
      fc.property(
        fc.constantFrom(...texts),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        ({ position, path }, at, by) => {
          const changed = segments();
          const isChanged = change(changed[position], path, at, by);
          fc.pre(isChanged);
          expect(verifyChain(chain, changed).problems).not.toEqual([]);
        },
      ),
      { numRuns: 1_000 },
    );
  });

  const positions = (): { segment: number; record: number }[] =>
    segments().flatMap(({ records }, segment) => records.map((_, record) => ({ segment, record })));

  it('shows a record that is missing, doubled, or in another place, at every position', () => {
    for (const { segment, record } of positions()) {
      const dropped = segments();
      dropped[segment]?.records.splice(record, 1);
      const doubled = segments();
      const same = doubled[segment]?.records[record];
      if (same !== undefined) doubled[segment]?.records.splice(record, 0, same);
      for (const changed of [dropped, doubled]) {
        expect(verifyChain(chain, changed).problems).not.toEqual([]);
      }
      for (const other of positions()) {
        if (other.segment === segment && other.record === record) continue;
        const moved = segments();
        const [taken] = moved[segment]?.records.splice(record, 1) ?? [];
        if (taken !== undefined) moved[other.segment]?.records.splice(other.record, 0, taken);
        expect(verifyChain(chain, moved).problems).not.toEqual([]);
      }
    }
  });

  it('shows a segment that is missing, doubled, or not the last', () => {
    for (const [position] of segments().entries()) {
      const dropped = segments().toSpliced(position, 1);
      const known = { anchors };
      expect(verifyChain(chain, dropped, known).problems).not.toEqual([]);
      const [doubled] = segments().slice(position);
      const all = doubled === undefined ? [] : [...segments(), doubled];
      expect(verifyChain(chain, all, known).problems).not.toEqual([]);
    }
  });

  it('shows a return to any state before, by a head that was written down elsewhere', () => {
    const last = anchors.slice(-1);
    for (const past of history.slice(0, -1)) {
      expect(verifyChain(chain, past).problems.every(({ code }) => code === 'Gap')).toBe(true);
      const { problems } = verifyChain(chain, past, { anchors: last });
      expect(problems.map(({ code }) => code)).toContain('RolledBack');
    }
  });

  it('shows a history that was written anew from any record on, with the right key too', () => {
    for (const { segment, record } of positions()) {
      const forged = segments().slice(0, segment + 1);
      const target = forged[segment];
      if (target === undefined) continue;
      const before = target.records[record - 1];
      const end: ChainEnd = before ?? { sequence: target.first - 1, hash: target.previous };
      const forgedEntry = link(end, {
        chain,
        time: '2026-01-01T00:00:00.000Z',
        action: 'NothingHappened',
        outcome: 'Observed',
        actor: { name: 'mallory', basis: 'authenticated' },
      });
      target.records = [...target.records.slice(0, record), forgedEntry];
      target.sealed = false;
      target.head = signHead(
        { chain, incarnation: target.incarnation },
        forgedEntry,
        target.head.time,
        key,
      );
      expect(verifyChain(chain, forged, { anchors }).problems).not.toEqual([]);
      const stranger = newKey();
      target.head = signHead(
        { chain, incarnation: target.incarnation },
        forgedEntry,
        target.head.time,
        stranger,
      );
      const { problems } = verifyChain(chain, forged, { trustedKeys: [key.publicKey] });
      expect(problems.map(({ code }) => code)).toContain('UntrustedKey');
    }
  });

  it('shows one record that was written anew, with a hash that fits it', () => {
    for (const { segment, record } of positions()) {
      const forged = segments();
      const target = forged[segment];
      if (target === undefined) continue;
      const before = target.records[record - 1];
      const end: ChainEnd = before ?? { sequence: target.first - 1, hash: target.previous };
      target.records[record] = link(end, {
        chain,
        time: '2026-01-01T00:00:00.000Z',
        action: 'NothingHappened',
        outcome: 'Observed',
        actor: { name: 'mallory', basis: 'authenticated' },
        details: { carried: digestOf(target.carried) },
      });
      expect(verifyChain(chain, forged).problems).not.toEqual([]);
    }
  });

  it('is total: whatever stands in the records', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.nat(), (value, at) => {
        const changed = segments();
        const { records = [] } = changed[at % changed.length] ?? {};
        const entry = records[at % records.length];
        if (entry !== undefined) entry.record = JSON.stringify(value);
        expect(verifyChain(chain, changed).problems).not.toEqual([]);
      }),
    );
    expect(verifyChain(chain, []).problems).not.toEqual([]);
  });
});

type Path = (string | number)[];

/** Paths of all values below that are no objects. */
function leavesOf(value: unknown, path: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return [path];
  return Object.entries(value).flatMap(([field, item]) => leavesOf(item, [...path, field]));
}

/** Changes one leaf. @returns whether it is another one now */
function change(root: unknown, path: Path, at: number, by: number): boolean {
  const parents = path.slice(0, -1);
  let parent: unknown = root;
  for (const field of parents) parent = Reflect.get(Object(parent), field);
  const field = path.at(-1) ?? '';
  const before: unknown = Reflect.get(Object(parent), field);
  const after = another(before, at, by);
  Reflect.set(Object(parent), field, after);
  return after !== before;
}

function another(value: unknown, at: number, by: number): unknown {
  if (typeof value === 'number') return value + by;
  if (typeof value === 'boolean') return !value;
  const text = String(value);
  const position = text.length === 0 ? 0 : at % text.length;
  const code = (text.charCodeAt(position) + by) % 0xd000;
  return text.slice(0, position) + String.fromCharCode(code) + text.slice(position + 1);
}
