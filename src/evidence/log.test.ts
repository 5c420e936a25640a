import { generateKeyPairSync } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { silentLogger } from '../observability/logger.ts';
import type { ChainLimits } from './chain-writer.ts';
import { publicKeyOf, type SigningKey } from './head.ts';
import { EvidenceLog } from './log.ts';
import { MemoryClient, MemoryCluster, type Fault } from './memory-client.testing.ts';
import { hourOf, runScope, startScope, type Fact, type Observation } from './observation.ts';
import type { EvidenceRecord, RecordDraft } from './record.ts';
import { verifyChain, type ChainProof } from './verify.ts';

const chain = 'finance/invoice';
const { privateKey } = generateKeyPairSync('ed25519');
const key: SigningKey = { privateKey, publicKey: publicKeyOf(privateKey) };
const limits: ChainLimits = {
  segmentBytes: 4_000,
  segments: 100,
  retentionMs: 1e12,
  requireExport: false,
};

function draft(action: string): RecordDraft {
  return {
    action,
    outcome: 'Observed',
    actor: { name: 'alice', basis: 'authenticated' },
    message: 'x'.repeat(100),
  };
}

function level(subject: string, state: string): Observation {
  return { facts: [{ subject, state, draft: () => draft(`${subject}=${state}`) }] };
}

function logOf(client: MemoryClient, options: Partial<ChainLimits> = {}): EvidenceLog {
  return new EvidenceLog({
    client,
    signingKey: async () => Promise.resolve(key),
    limits: { ...limits, ...options },
    logger: silentLogger(),
    clock: Date.now,
    batchMs: 1,
  });
}

function proofOf(cluster: MemoryCluster): ChainProof {
  return verifyChain(chain, cluster.segments('finance', 'invoice'));
}

/** Without what the chain says of itself. */
function told(records: readonly EvidenceRecord[]): string[] {
  return records.map(({ action }) => action).filter((action) => !/^(Chain|Segment)/.test(action));
}

const never = new AbortController().signal;

describe('the log', () => {
  it('records each change of a level once, in order, over many segments', async () => {
    const cluster = new MemoryCluster('finance');
    const log = logOf(new MemoryClient(cluster));
    const expected: string[] = [];
    for (let turn = 0; turn < 40; turn++) {
      log.observe(chain, level('a', String(turn)));
      log.observe(chain, level('a', String(turn)));
      expected.push(`a=${turn}`);
      expect(await log.settle(chain, never)).toBe(true);
    }
    const { records, problems } = proofOf(cluster);
    expect(problems).toEqual([]);
    expect(told(records)).toEqual(expected);
    expect(cluster.segments('finance', 'invoice').length).toBeGreaterThan(3);
  });

  it('writes nothing where nothing changed, whoever asks', async () => {
    const cluster = new MemoryCluster('finance');
    const first = logOf(new MemoryClient(cluster));
    first.observe(chain, level('a', '1'));
    await first.settle(chain, never);
    const { writes } = cluster;
    for (const log of [first, logOf(new MemoryClient(cluster))]) {
      log.observe(chain, level('a', '1'));
      expect(await log.settle(chain, never)).toBe(true);
    }
    expect(cluster.writes).toBe(writes);
  });

  it('tells what does not stand any more', async () => {
    const cluster = new MemoryCluster('finance');
    const log = logOf(new MemoryClient(cluster));
    log.observe(chain, level('token/a', '1'));
    log.observe(chain, level('other', '1'));
    const gone: Observation = {
      scope: 'token/',
      facts: [],
      gone: (subject) => draft(`-${subject}`),
    };
    log.observe(chain, gone);
    log.observe(chain, gone);
    await log.settle(chain, never);
    expect(told(proofOf(cluster).records)).toEqual(['token/a=1', 'other=1', '-token/a']);
  });

  it('folds starts and successes with exact counts, and counts none twice', async () => {
    const cluster = new MemoryCluster('finance');
    const ended = '2026-01-01T10:20:30Z';
    const run = (name: string): Observation => ({
      facts: [startScope, runScope].map((scope) => ({
        subject: `${scope}${name}/`,
        state: ended,
        draft: () => draft(scope),
        foldInto: hourOf(ended),
      })),
    });
    for (let restart = 0; restart < 2; restart++) {
      const log = logOf(new MemoryClient(cluster));
      for (let index = 0; index < 150; index++) log.observe(chain, run(String(index)));
      await log.settle(chain, never);
    }
    const { records, problems } = proofOf(cluster);
    expect(problems).toEqual([]);
    for (const scope of [startScope, runScope]) {
      const counts = records
        .filter(({ action }) => action === scope)
        .flatMap(({ details }) => Number(details?.['count'] ?? 0));
      expect(counts).toEqual([64, 64, 22]);
    }
  });

  it('keeps the last level of each subject where too much waits', async () => {
    const cluster = new MemoryCluster('finance');
    const log = logOf(new MemoryClient(cluster));
    for (let index = 0; index < 5_000; index++) {
      log.observe(chain, level(`s${index % 7}`, String(index)));
    }
    expect(log.pending).toBeLessThan(1_000);
    await log.settle(chain, never);
    while (!(await log.settle(chain, never)));
    const last = new Map(
      proofOf(cluster).records.flatMap(({ subject, after }) =>
        subject === undefined ? [] : [[subject, after]],
      ),
    );
    expect([...last.values()].map(Number).toSorted((a, b) => a - b)).toEqual(
      [0, 1, 2, 3, 4, 5, 6].map((offset) => 4_993 + offset),
    );
  });

  it('records nothing twice of what came and went, however much is told meanwhile', async () => {
    const cluster = new MemoryCluster('finance');
    const tell = (from: number): void => {
      for (let index = from; index < from + 600; index++) {
        log.observe(chain, level(`s${index}/`, 'on'));
        const gone = (): RecordDraft => draft(`-s${index}/`);
        log.observe(chain, { scope: `s${index}/`, facts: [], gone });
      }
    };
    const client = new MemoryClient(cluster, (write) => {
      if (write === 1) tell(600);
      return 'none';
    });
    const log = logOf(client, { segments: 1_000 });
    tell(0);
    while (!(await log.settle(chain, never)));
    const expected = Array.from({ length: 1_200 }, (_, index) => [`s${index}/=on`, `-s${index}/`]);
    expect(told(proofOf(cluster).records)).toEqual(expected.flat());
  });

  it('does not go through all that waits for each that comes, where that is no less', () => {
    const log = logOf(new MemoryClient(new MemoryCluster('finance')));
    let looks = 0;
    for (let index = 0; index < 5_000; index++) {
      const fact: Fact = {
        get subject() {
          looks += 1;
          return `s${index}`;
        },
        state: 'on',
        draft: () => draft('on'),
      };
      log.observe(chain, { facts: [fact] });
    }
    expect(log.pending).toBe(5_000);
    expect(looks).toBeLessThan(20 * 5_000);
  });

  it('drops counted runs where nothing can be written for too long, says so, and loses nothing else', async () => {
    const cluster = new MemoryCluster('finance');
    let isRefused = true;
    let dropped = 0;
    const log = new EvidenceLog({
      client: new MemoryClient(cluster, () => (isRefused ? 'refused' : 'none')),
      signingKey: async () => Promise.resolve(key),
      limits,
      logger: silentLogger(),
      clock: Date.now,
      maxPending: 8,
      metrics: {
        countRecords: () => undefined,
        countEvidenceFailure: () => undefined,
        setEvidencePending: () => undefined,
        countDroppedRuns: (count) => (dropped += count),
      },
    });
    const at = '2026-01-01T10:20:30Z';
    const runs = 1_000;
    for (let index = 0; index < runs; index++) {
      for (const scope of [startScope, runScope]) {
        const subject = `${scope}${index}/`;
        const fact = { subject, state: at, foldInto: hourOf(at), draft: () => draft(scope) };
        log.observe(chain, { facts: [fact] });
      }
      log.observe(chain, { scope: [`${startScope}${index}/`, `${runScope}${index}/`], facts: [] });
      if (index % 100 === 0) log.observe(chain, level(`${runScope}failed${index}/`, at));
      if (index % 20 === 0) expect(await log.settle(chain, never)).toBe(false);
      expect(log.pending).toBeLessThan(200);
    }
    expect(dropped).toBeGreaterThan(0);
    isRefused = false;
    while (!(await log.settle(chain, never)));
    const { records, problems } = proofOf(cluster);
    expect(problems).toEqual([]);
    const failed = records.filter(({ subject }) => subject?.startsWith(`${runScope}failed`));
    expect(failed).toHaveLength(10);
    const countOf = (...actions: string[]): number =>
      records
        .filter(({ action }) => actions.includes(action))
        .reduce((sum, { details }) => sum + Number(details?.['count']), 0);
    expect(countOf('RunsDropped')).toBe(dropped);
    expect(countOf(startScope, runScope)).toBe(2 * runs - dropped);
    expect(countOf(startScope, runScope)).toBeLessThan(200);
  });

  it('lets go of old segments, says so first, and the rest still proves itself', async () => {
    const cluster = new MemoryCluster('finance');
    const log = logOf(new MemoryClient(cluster), { segments: 2 });
    for (let turn = 0; turn < 40; turn++) {
      log.observe(chain, level(`s${turn % 3}`, String(turn)));
      await log.settle(chain, never);
    }
    expect(cluster.segments('finance', 'invoice').length).toBeLessThanOrEqual(2);
    const { records, problems } = proofOf(cluster);
    expect(problems).toEqual([]);
    expect(records[0]?.sequence).toBeGreaterThan(1);
    // What older segments said isn't forgotten with them.
    const { writes } = cluster;
    const other = logOf(new MemoryClient(cluster), { segments: 2 });
    for (const turn of [37, 38, 39]) other.observe(chain, level(`s${turn % 3}`, String(turn)));
    await other.settle(chain, never);
    expect(cluster.writes).toBe(writes);
  });

  it('keeps what was not exported where export is required', async () => {
    const cluster = new MemoryCluster('finance');
    const log = logOf(new MemoryClient(cluster), { segments: 1, requireExport: true });
    for (let turn = 0; turn < 40; turn++) {
      log.observe(chain, level('a', String(turn)));
      await log.settle(chain, never);
    }
    expect(proofOf(cluster).records[0]?.sequence).toBe(1);
  });
});

const faults: Fault[] = ['refused', 'timeout-before', 'timeout-after'];

describe('a crash between any two writes', () => {
  /** Levels that each process tells from the start, as from a list. */
  async function live(client: MemoryClient, until: number): Promise<void> {
    const log = logOf(client, { segments: 4 });
    for (let turn = 0; turn <= until; turn++) {
      log.observe(chain, level(`s${turn}`, 'on'));
      if (turn % 3 === 0) {
        await log.settle(chain, never);
      }
    }
    await log.settle(chain, never);
  }

  it.each(['killed-before', 'killed-after'] as const)(
    'loses nothing, doubles nothing, forks nothing: %s',
    async (fault) => {
      for (let at = 1; at <= 24; at++) {
        const cluster = new MemoryCluster('finance');
        const first = new MemoryClient(cluster, (write) => (write === at ? fault : 'none'));
        const life = live(first, 40);
        while (!first.isKilled && (await Promise.race([life, tick()])) !== undefined);
        await live(new MemoryClient(cluster), 40);
        const { records, problems } = proofOf(cluster);
        expect(problems).toEqual([]);
        const all = told(records);
        expect(new Set(all).size).toBe(all.length);
        expect(all.at(-1)).toBe('s40=on');
      }
    },
  );

  async function tick(): Promise<'pending'> {
    await new Promise(setImmediate);
    return 'pending';
  }

  it('a writer that lags seals nothing that has grown meanwhile', async () => {
    const cluster = new MemoryCluster('finance');
    const [slow, fast] = [logOf(new MemoryClient(cluster)), logOf(new MemoryClient(cluster))];
    for (let turn = 0; turn < 100; turn++) {
      // Longer records: where one of the other still fits, such a one needs a segment of its own.
      slow.observe(chain, level(`slow${turn}`, 'x'.repeat(1 + ((turn * 7) % 120))));
      while (!(await slow.settle(chain, never)));
      fast.observe(chain, level(`fast${turn}`, '1'));
      while (!(await fast.settle(chain, never)));
    }
    const { records, problems } = proofOf(cluster);
    expect(problems).toEqual([]);
    expect(told(records)).toHaveLength(200);
    expect(cluster.segments('finance', 'invoice').length).toBeGreaterThan(5);
  });

  it('two writers at once, and answers of 500 after the commit: each level once', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(60), fc.constantFrom(...faults)), { maxLength: 20 }),
        fc.array(fc.tuple(fc.nat(60), fc.constantFrom(...faults)), { maxLength: 20 }),
        async (one, two) => {
          const cluster = new MemoryCluster('finance');
          const total = 30;
          const work = [one, two].map(async (plan) => {
            const at = new Map(plan);
            const log = logOf(new MemoryClient(cluster, (write) => at.get(write) ?? 'none'));
            for (let turn = 0; turn < total; turn++) {
              log.observe(chain, level(`s${turn}`, 'on'));
              if (turn % 4 === 0) await log.settle(chain, never);
            }
            while (!(await log.settle(chain, never)));
          });
          await Promise.all(work);
          const { records, problems } = proofOf(cluster);
          expect(problems).toEqual([]);
          expect(told(records).toSorted()).toEqual(
            Array.from({ length: total }, (_, turn) => `s${turn}=on`).toSorted(),
          );
        },
      ),
      { numRuns: 40 },
    );
  });
});
