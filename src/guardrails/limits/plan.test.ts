import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { runsStatusSchema, type Ledger, type Limits } from '../../api/limits.ts';
import { projectWorkload } from '../../api/workload.ts';
import { plan, runOf, runsOfLastHour, type Observed, type Run } from './plan.ts';

const start = Date.UTC(2030, 0, 1, 12);
const minute = 60_000;

function run(uid: string, fields: Partial<Run> = {}): Run {
  return { uid, createdAt: start, state: 'UnderWay', ...fields };
}

const failed = (uid: string, seconds: number): Run =>
  run(uid, { state: 'Over', ended: { at: start + seconds * 1000, failed: true } });
const succeeded = (uid: string, seconds: number): Run =>
  run(uid, { state: 'Over', ended: { at: start + seconds * 1000, failed: false } });

function limits(fields: Partial<Limits>): Limits {
  return { onBreach: 'Hold', ...fields };
}

/** Looks at one Workflow again and again, as the operator does. */
class Follower {
  ledger: Ledger | undefined;
  now = start;

  look(fields: Pick<Observed, 'limits' | 'runs'> & Partial<Observed>) {
    const counted = plan({ ledger: this.ledger, now: this.now, ...fields });
    this.ledger = counted.ledger;
    return counted;
  }

  get breached(): string[] {
    return (this.ledger?.breaches ?? []).map(({ limit }) => limit);
  }
}

describe('a limit', () => {
  it('is breached by one more than it allows', () => {
    const follower = new Follower();
    const all = limits({ maxConcurrentRuns: 2, maxRunsPerHour: 2, maxConsecutiveFailures: 2 });
    const two = [failed('a', 1), failed('b', 2)];
    follower.look({ limits: all, runs: two });
    expect(follower.ledger).toMatchObject({ consecutiveFailures: 2 });
    expect(follower.breached).toEqual([]);
    const { crossed } = follower.look({
      limits: all,
      runs: [...two, failed('c', 3), run('d'), run('e'), run('f')],
    });
    expect(crossed).toEqual([
      { limit: 'maxConcurrentRuns', allowed: 2, counted: 3, since: '2030-01-01T12:00:00Z' },
      { limit: 'maxRunsPerHour', allowed: 2, counted: 6, since: '2030-01-01T12:00:00Z' },
      { limit: 'maxConsecutiveFailures', allowed: 2, counted: 3, since: '2030-01-01T12:00:00Z' },
    ]);
    expect(follower.look({ limits: all, runs: two }).crossed).toEqual([]);
  });

  it('that is not there counts nothing', () => {
    expect(new Follower().look({ limits: limits({ timeout: '1h' }), runs: [run('a')] })).toEqual({
      ledger: undefined,
      crossed: [],
    });
    expect(new Follower().look({ limits: undefined, runs: [run('a')] }).ledger).toBeUndefined();
  });

  it('on what is under way leaves out what is suspended, over or gone', () => {
    const follower = new Follower();
    const states = ['Suspended', 'Over', 'Gone'] as const;
    const runs = states.map((state) => run(state, { state }));
    follower.look({ limits: limits({ maxConcurrentRuns: 1 }), runs: [...runs, run('a')] });
    expect(follower.breached).toEqual([]);
  });

  it('on failures forgets those before a success, in the order in which they ended', () => {
    const follower = new Follower();
    follower.look({
      limits: limits({ maxConsecutiveFailures: 1 }),
      runs: [failed('d', 4), failed('a', 1), succeeded('c', 3), failed('b', 2)],
    });
    expect(follower.ledger?.consecutiveFailures).toBe(1);
  });

  it('stores nothing new when nothing happened', () => {
    const follower = new Follower();
    const observed = { limits: limits({ maxRunsPerHour: 1 }), runs: [run('a'), run('b')] };
    follower.look(observed);
    const before = follower.ledger;
    follower.now += 90_000;
    follower.look(observed);
    expect(follower.ledger).toEqual(before);
  });
});

describe('a breach', () => {
  it('of a number that can fall ends below the limit, and says when to look again', () => {
    const follower = new Follower();
    const observed = { limits: limits({ maxRunsPerHour: 2 }), runs: [] };
    const created = [0, 1, 1, 2].map((at, index) =>
      run(`${index}`, { createdAt: start + at * minute, state: 'Over' }),
    );
    follower.now = start + 2 * minute + 10_000;
    follower.look({ ...observed, runs: created });
    expect(follower.breached).toEqual(['maxRunsPerHour']);
    expect(follower.look(observed).recheckAfterMs).toBe(50_000);
    follower.now = start + 60 * minute;
    follower.look(observed);
    expect(follower.breached).toEqual(['maxRunsPerHour']);
    follower.now = start + 61 * minute;
    expect(follower.look(observed).recheckAfterMs).toBeUndefined();
    expect(follower.breached).toEqual([]);
  });

  it('of too many at a time ends below the limit, or when the limit is raised above it', () => {
    const one = new Follower();
    const [a, b, c] = [run('a'), run('b'), run('c')];
    const two = limits({ maxConcurrentRuns: 2 });
    one.look({ limits: two, runs: [a, b, c] });
    one.look({ limits: two, runs: [a, b] });
    expect(one.breached).toEqual(['maxConcurrentRuns']);
    one.look({ limits: two, runs: [a] });
    expect(one.breached).toEqual([]);
    one.look({ limits: two, runs: [a, b, c] });
    one.look({ limits: limits({ maxConcurrentRuns: 4 }), runs: [a, b, c] });
    expect(one.breached).toEqual([]);
  });

  it('by failures stays, whatever succeeds and whatever becomes of the limit', () => {
    const follower = new Follower();
    const two = [failed('a', 1), failed('b', 2)];
    follower.look({ limits: limits({ maxConsecutiveFailures: 1 }), runs: two });
    follower.look({ limits: limits({ maxConsecutiveFailures: 1 }), runs: [succeeded('c', 3)] });
    expect(follower.ledger?.consecutiveFailures).toBe(0);
    follower.look({ limits: undefined, runs: [] });
    expect(follower.breached).toEqual(['maxConsecutiveFailures']);
  });

  it('ends when a person acknowledges it, and counting begins anew', () => {
    const follower = new Follower();
    const all = limits({ maxConcurrentRuns: 1, maxRunsPerHour: 2, maxConsecutiveFailures: 0 });
    const runs = [failed('a', 1), run('b'), run('c')];
    follower.look({ limits: all, runs });
    expect(follower.breached).toHaveLength(3);
    const acknowledgement = { by: 'alice', reason: 'known' };
    follower.look({ limits: all, runs, acknowledgement });
    expect(follower.ledger).toMatchObject({
      consecutiveFailures: 0,
      tolerated: 2,
      acknowledged: { ...acknowledgement, time: '2030-01-01T12:00:00Z' },
    });
    expect(follower.breached).toEqual([]);
    follower.look({ limits: all, runs });
    expect(follower.breached).toEqual([]);
    // One more than were there is another breach, which nobody has acknowledged.
    follower.look({ limits: all, runs: [...runs, run('d')] });
    expect(follower.breached).toEqual(['maxConcurrentRuns']);
    expect(follower.ledger?.acknowledged).toBeUndefined();
  });

  it('tolerates fewer as runs end', () => {
    const follower = new Follower();
    const one = limits({ maxConcurrentRuns: 1 });
    const [a, b, c] = [run('a'), run('b'), run('c')];
    follower.look({ limits: one, runs: [a, b, c] });
    follower.look({ limits: one, runs: [a, b, c], acknowledgement: { by: 'alice', reason: 'x' } });
    follower.look({ limits: one, runs: [a, b] });
    expect(follower.ledger?.tolerated).toBe(2);
    follower.look({ limits: one, runs: [a] });
    expect(follower.ledger?.tolerated).toBeUndefined();
    follower.look({ limits: one, runs: [a, run('d')] });
    expect(follower.breached).toEqual(['maxConcurrentRuns']);
  });

  it('that a KillSwitch stands for ends with that, and with nothing else', () => {
    const follower = new Follower();
    const kill: Limits = { maxConcurrentRuns: 1, onBreach: 'Kill' };
    const two = [run('a'), run('b')];
    follower.look({ limits: kill, runs: two });
    if (follower.ledger === undefined) throw new Error('nothing was counted');
    follower.ledger = { ...follower.ledger, killSwitch: 'uid' };
    const paused = two.map((one): Run => ({ ...one, state: 'Suspended' }));
    const acknowledgement = { by: 'alice', reason: 'x' };
    follower.look({ limits: kill, runs: paused, acknowledgement });
    expect(follower.breached).toEqual(['maxConcurrentRuns']);
    follower.look({ limits: kill, runs: paused, isReleased: true });
    expect(follower.breached).toEqual([]);
    expect(follower.ledger?.killSwitch).toBeUndefined();
    follower.look({ limits: kill, runs: two });
    expect(follower.breached).toEqual([]);
  });
});

describe('a failure rate', () => {
  const rate = (fields: object = {}): Limits =>
    limits({ maxFailureRate: { percent: 25, over: 4, minRuns: 3, ...fields } });

  it('is breached above its percentage, and not before enough runs have ended', () => {
    const follower = new Follower();
    const two = [failed('a', 1), failed('b', 2)];
    expect(follower.look({ limits: rate(), runs: two }).crossed).toEqual([]);
    const { crossed } = follower.look({ limits: rate(), runs: [...two, succeeded('c', 3)] });
    expect(crossed).toEqual([
      { limit: 'maxFailureRate', allowed: 25, counted: 2, of: 3, since: '2030-01-01T12:00:00Z' },
    ]);
  });

  it('is not breached by exactly its percentage', () => {
    const follower = new Follower();
    const runs = [failed('a', 1), ...['b', 'c', 'd'].map((uid, at) => succeeded(uid, at + 2))];
    expect(follower.look({ limits: rate({ minRuns: 4 }), runs }).crossed).toEqual([]);
    expect(follower.ledger?.outcomes).toBe('FSSS');
    follower.look({ limits: rate({ minRuns: 4 }), runs: [...runs, failed('e', 6)] });
    expect(follower.ledger?.outcomes).toBe('SSSF');
    expect(follower.breached).toEqual([]);
  });

  it('stays breached whatever succeeds, until a person acknowledges it, and begins anew', () => {
    const follower = new Follower();
    const bad = ['a', 'b', 'c'].map((uid, at) => failed(uid, at));
    const good = ['d', 'e', 'f', 'g'].map((uid, at) => succeeded(uid, at + 10));
    follower.look({ limits: rate(), runs: bad });
    follower.look({ limits: rate(), runs: [...bad, ...good] });
    expect(follower.breached).toEqual(['maxFailureRate']);
    const acknowledgement = { by: 'eve', reason: 'fixed' };
    follower.look({ limits: rate(), runs: [...bad, ...good], acknowledgement });
    expect(follower.breached).toEqual([]);
    expect(follower.ledger?.outcomes).toBeUndefined();
  });

  it('of which nobody asks keeps nothing', () => {
    const follower = new Follower();
    follower.look({ limits: limits({ maxRunsPerHour: 9 }), runs: [failed('a', 1)] });
    expect(follower.ledger).not.toHaveProperty('outcomes');
  });
});

describe('a Job', () => {
  it('is a run by its creation and its end', () => {
    const metadata = { name: 'a', uid: 'u', creationTimestamp: '2030-01-01T12:00:00Z' };
    const object = (status: object, spec: object = {}): Run => {
      const job = { metadata, spec, status };
      return runOf(projectWorkload('Job', job));
    };
    const end = (type: string) => ({
      conditions: [
        { type: 'FailureTarget', status: 'True' },
        { type, status: 'True', lastTransitionTime: '2030-01-01T12:00:07Z' },
      ],
    });
    expect(object({})).toEqual(run('u'));
    expect(object({}, { suspend: true })).toEqual(run('u', { state: 'Suspended' }));
    expect(object(end('Failed'))).toEqual(failed('u', 7));
    expect(object(end('Complete'))).toEqual(succeeded('u', 7));
    expect(object({ conditions: [{ type: 'Failed', status: 'True' }] })).toEqual(failed('u', 0));
  });
});

const everything = limits({
  maxConcurrentRuns: 1_000,
  maxRunsPerHour: 1_000,
  maxConsecutiveFailures: 1_000,
  maxFailureRate: { percent: 99, over: 7, minRuns: 7 },
});

/** What counting has to come to, with all that ever happened in memory. */
class Model {
  readonly created = new Map<string, number>();
  readonly #ended = new Set<string>();
  readonly outcomes: string[] = [];
  failures = 0;

  count(runs: readonly Run[], now: number): void {
    const latest = Math.max(Math.floor(now / minute), ...this.created.values());
    for (const { uid, createdAt } of runs) {
      if (this.created.has(uid)) continue;
      this.created.set(uid, Math.min(Math.floor(createdAt / minute), latest));
    }
    const fresh = runs
      .flatMap(({ uid, ended }) => (ended && !this.#ended.has(uid) ? [{ uid, ...ended }] : []))
      .toSorted((a, b) => a.at - b.at || (a.uid < b.uid ? -1 : 1));
    for (const { uid, failed: isFailure } of fresh) {
      this.#ended.add(uid);
      this.failures = isFailure ? this.failures + 1 : 0;
      this.outcomes.push(isFailure ? 'F' : 'S');
    }
  }

  hour(now: number): number {
    const latest = Math.max(Math.floor(now / minute), ...this.created.values());
    return [...this.created.values()].filter((at) => at > latest - 60).length;
  }
}

const happenings = fc.array(
  fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({ what: fc.constant('wait' as const), ms: fc.nat(200_000) }),
    },
    // What is created may be seen late, by less than a minute.
    {
      weight: 5,
      arbitrary: fc.record({ what: fc.constant('create' as const), late: fc.nat(58_000) }),
    },
    {
      weight: 4,
      arbitrary: fc.record({
        what: fc.constant('end' as const),
        which: fc.nat(),
        fails: fc.boolean(),
      }),
    },
    { weight: 2, arbitrary: fc.record({ what: fc.constant('delete' as const), which: fc.nat() }) },
    {
      weight: 1,
      arbitrary: fc.record({
        what: fc.constant('step' as const),
        ms: fc.integer({ min: -7_200_000, max: 7_200_000 }),
      }),
    },
    {
      weight: 5,
      arbitrary: fc.record({
        what: fc.constant('look' as const),
        outcome: fc.constantFrom(
          'stored' as const,
          'not yet' as const,
          'crash' as const,
          'failover' as const,
        ),
      }),
    },
  ),
  { minLength: 1, maxLength: 120 },
);

it('counts every run once, through restarts, clocks that are set, and deletions', () => {
  fc.assert(
    fc.property(happenings, (steps) => {
      const model = new Model();
      let ledger: Ledger | undefined;
      let time = start;
      let offset = 0;
      let next = 0;
      const existing: Run[] = [];
      let gone: Run[] = [];
      for (const step of [...steps, { what: 'look', outcome: 'stored' } as const]) {
        const now = time + offset;
        const second = Math.floor(time / 1000) * 1000;
        switch (step.what) {
          case 'wait':
            time += step.ms;
            break;
          case 'step':
            offset = step.ms;
            break;
          case 'create':
            existing.push(
              run(`${1e8 + next++}-0000-x`, {
                createdAt: second - Math.floor(step.late / 1000) * 1000,
              }),
            );
            break;
          case 'end': {
            const index = existing.findIndex(({ ended }) => ended === undefined);
            const found = existing[index];
            if (found === undefined) break;
            existing[index] = {
              ...found,
              state: 'Over',
              ended: { at: second, failed: step.fails },
            };
            break;
          }
          case 'delete': {
            const [deleted] = existing.splice(step.which % Math.max(existing.length, 1), 1);
            if (deleted !== undefined) gone.push({ ...deleted, state: 'Gone' });
            break;
          }
          case 'look': {
            const runs = [...existing, ...gone];
            const counted = plan({ ledger, limits: everything, runs, now });
            if (step.outcome === 'crash') gone = [];
            if (step.outcome === 'crash' || step.outcome === 'not yet') break;
            // Another replica remembers what the one before has counted already.
            if (step.outcome === 'stored') gone = [];
            ledger = runsStatusSchema.parse(JSON.parse(JSON.stringify(counted.ledger)));
            model.count(runs, now);
            expect(runsOfLastHour(ledger, now)).toBe(model.hour(now));
            expect(ledger.consecutiveFailures).toBe(model.failures);
            expect(ledger.outcomes ?? '').toBe(model.outcomes.slice(-7).join(''));
            expect(ledger.perMinute?.created.length ?? 0).toBeLessThanOrEqual(60);
            break;
          }
        }
      }
    }),
    { numRuns: 500 },
  );
});
