import * as fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import type {
  AutomationIdentity,
  AutomationIdentityStatus,
  GeneratedSecret,
} from '../../api/automation-identity.ts';
import { annotation } from '../../api/names.ts';
import type { KubeObject, Secret } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import { projectWorkload, type Workload } from '../../api/workload.ts';
import type { Logger } from '../../observability/logger.ts';
import { ApiError } from '../../runtime/errors.ts';
import { MemoryClient, type Write } from '../identity/memory-client.testing.ts';
import { keysOfType } from './generate.ts';
import { noSecretStore } from '../secret-store/store.ts';
import { CredentialCopies } from './copies.ts';
import { CredentialKeeper, type CredentialsOutcome, type Notice } from './keeper.ts';
import { seededBytes } from './random.testing.ts';
import { RevokedTokens } from './revoked-tokens.ts';

const minute = 60_000;
const hour = 60 * minute;
const start = Date.parse('2026-05-01T00:00:00Z');

const erp: GeneratedSecret = {
  name: 'erp',
  type: 'Password',
  rotation: { every: '240h', overlap: '2h', hook: { set: 'erp-set', test: 'erp-test' } },
};
const secretKey = { namespace: 'billing', name: 'aid.poster.erp' };

interface Job extends KubeObject {
  spec: { activeDeadlineSeconds: number; backoffLimit: number; template: object };
}

/** One identity, its keeper, its hooks, and the system that they tell. */
class Bench {
  now = start;
  credential = erp;
  isWithheld = false;
  nonce: string | undefined;
  emergency: string | undefined;
  status: AutomationIdentityStatus = {};
  /** What the other system accepts, as the Secret has it. */
  accepted: string | undefined;
  readonly client = new MemoryClient(() => this.now);
  readonly notices: Notice[] = [];
  readonly counted: string[] = [];
  readonly said: unknown[] = [];
  readonly #keeper: CredentialKeeper;

  constructor() {
    const list = (): Workload[] =>
      this.client.all(resources.jobs).map((job) => projectWorkload('Job', job));
    this.#keeper = new CredentialKeeper({
      client: this.client,
      workloads: {
        list,
        byIndex: (index, key) =>
          index === 'identity'
            ? list().filter((job) => `${job.metadata.namespace}/${job.serviceAccountName}` === key)
            : [],
      },
      pods: { byIndex: () => [] },
      countRotation: (result) => this.counted.push(result),
      clock: () => this.now,
      revoked: new RevokedTokens({ clock: () => this.now }),
      copies: new CredentialCopies({
        ledger: {
          record: () => Promise.resolve(),
          strike: () => Promise.resolve(),
          entriesOf: () => [],
          reread: () => Promise.resolve([]),
        },
        store: noSecretStore,
        countCopy: () => undefined,
        clock: () => this.now,
      }),
      randomBytes: seededBytes(),
    });
    for (const name of ['erp-set', 'erp-test']) this.putCronJob(name);
  }

  putCronJob(name: string, { suspend = true, serviceAccountName = 'poster' } = {}): void {
    const template = {
      metadata: { labels: { app: name } },
      spec: { serviceAccountName, containers: [{ name, image: 'registry.example/hook:1' }] },
    };
    this.client.put(resources.cronJobs, {
      metadata: { name, namespace: 'billing' },
      spec: { schedule: '0 0 1 1 *', suspend, jobTemplate: { spec: { template } } },
    } as KubeObject);
  }

  get identity(): AutomationIdentity {
    return {
      metadata: {
        name: 'poster',
        namespace: 'billing',
        uid: 'uid-of-poster',
        annotations: {
          ...(this.nonce !== undefined && { [annotation.rotate]: this.nonce }),
          ...(this.emergency !== undefined && { [annotation.rotateEmergency]: this.emergency }),
        },
      },
      spec: {
        owner: { team: 'finance', contact: 'a@example.com' },
        secrets: [this.credential],
      },
      status: this.status,
    };
  }

  get secret(): Secret | undefined {
    return this.client.find(resources.secrets, secretKey);
  }

  value(key: string = keysOfType[this.credential.type][0]): string | undefined {
    return this.secret?.data?.[key];
  }

  get jobs(): Job[] {
    return this.client.all(resources.jobs) as Job[];
  }

  /** Jobs that have not ended, as `Set` and `Test`. */
  running(): string[] {
    return this.jobs
      .filter((job) => projectWorkload('Job', job).end === undefined)
      .map(({ metadata }) => metadata.annotations?.[annotation.rotationHook] ?? '');
  }

  /** The Jobs that run end: those of `Set` have told the other system of the value that waits. */
  end(type: 'Complete' | 'Failed', reason = 'BackoffLimitExceeded'): void {
    for (const job of this.jobs) {
      if (projectWorkload('Job', job).end !== undefined) continue;
      const step = job.metadata.annotations?.[annotation.rotationHook];
      if (step === 'Set') {
        const [key] = keysOfType[this.credential.type].toReversed();
        this.accepted = this.secret?.data?.[`next.${key}`];
      }
      const lastTransitionTime = new Date(this.now).toISOString();
      this.client.put(resources.jobs, {
        ...job,
        status: { conditions: [{ type, status: 'True', reason, lastTransitionTime }] },
      } as KubeObject);
    }
  }

  async keep(): Promise<CredentialsOutcome> {
    const outcome = await this.#keeper.keep({
      identity: this.identity,
      credentials: [this.credential],
      childMetadata: (name) => ({
        name,
        namespace: 'billing',
        ownerReferences: [
          { apiVersion: 'v1', kind: 'K', name: 'poster', uid: 'uid-of-poster', controller: true },
        ],
      }),
      tier: 'test',
      isWithheld: this.isWithheld,
      isKilled: false,
      notify: (notice) => this.notices.push(notice),
      signal: new AbortController().signal,
      log: this.#log(),
    });
    const { secrets, lastHandledRotation, lastHandledEmergencyRotation } = outcome;
    this.said.push(outcome);
    this.status = {
      secrets,
      ...(lastHandledRotation !== undefined && { lastHandledRotation }),
      ...(lastHandledEmergencyRotation !== undefined && { lastHandledEmergencyRotation }),
    };
    return outcome;
  }

  async settle(): Promise<CredentialsOutcome> {
    for (let looks = 0; looks < 20; looks++) {
      const [writes, status] = [this.client.writes.length, JSON.stringify(this.status)];
      const outcome = await this.keep();
      if (writes === this.client.writes.length && status === JSON.stringify(this.status)) {
        return outcome;
      }
    }
    throw new Error('does not settle');
  }

  /** All the way, with hooks that work. */
  async publish(): Promise<CredentialsOutcome> {
    for (;;) {
      const outcome = await this.settle();
      if (this.running().length === 0) return outcome;
      this.end('Complete');
    }
  }

  async kill(): Promise<void> {
    const { identity } = this;
    const { signal } = new AbortController();
    const { secrets } = await this.#keeper.withdraw(identity, identity.spec, {
      signal,
      log: this.#log(),
      notify: (notice) => this.notices.push(notice),
    });
    this.status = { ...this.status, secrets };
  }

  reasons(): string[] {
    return this.notices.splice(0).map(({ reason }) => reason);
  }

  #log(): Logger {
    const say = (...parts: unknown[]): void => {
      this.said.push(parts);
    };
    return { debug: say, info: say, warn: say, error: say, child: () => this.#log() };
  }
}

let bench: Bench;

beforeEach(() => {
  bench = new Bench();
});

describe('a rotation with a hook', () => {
  it('publishes the first value when the other system has it', async () => {
    const { problems, isReadable } = await bench
      .settle()
      .then((outcome) => ({ ...outcome, isReadable: bench.value() }));
    expect(problems).toMatchObject([{ reason: 'Provisioning' }]);
    expect(isReadable).toBeUndefined();
    expect(bench.running()).toEqual(['Set']);
    expect(bench.jobs).toMatchObject([
      {
        metadata: { ownerReferences: [{ uid: 'uid-of-poster', controller: true }] },
        spec: {
          activeDeadlineSeconds: 600,
          backoffLimit: 3,
          template: { spec: { serviceAccountName: 'poster' } },
        },
      },
    ]);
    expect(bench.status.secrets).toMatchObject([{ state: 'Minted' }]);
    const minted = bench.secret?.data?.['next.password'];

    bench.end('Complete');
    await bench.settle();
    expect(bench.running()).toEqual(['Test']);
    expect(bench.status.secrets).toMatchObject([{ state: 'Set' }]);
    expect(bench.value()).toBeUndefined();

    bench.end('Complete');
    expect((await bench.settle()).problems).toEqual([]);
    expect(bench.secret?.data).toEqual({ password: minted });
    expect(bench.secret?.metadata.annotations).not.toHaveProperty(annotation.pendingRotation);
    expect(bench.reasons()).toEqual(['SecretCreated']);
    expect(bench.counted).toEqual([]);
  });

  it('keeps the value before until the new one is tested, and then for the overlap', async () => {
    await bench.publish();
    const first = bench.value();
    bench.nonce = 'x';
    await bench.settle();
    const next = bench.secret?.data?.['next.password'];
    expect(bench.value()).toBe(first);
    expect(next).not.toBe(first);
    bench.end('Complete');
    await bench.settle();
    expect(bench.value()).toBe(first);
    expect(bench.status.lastHandledRotation).toBeUndefined();
    bench.end('Complete');
    await bench.settle();
    expect(bench.secret?.data).toEqual({ password: next, 'previous.password': first });
    expect(bench.status).toMatchObject({
      lastHandledRotation: 'x',
      secrets: [{ state: 'Converging' }],
    });
    bench.now += 3 * hour;
    await bench.settle();
    expect(bench.secret?.data).toEqual({ password: next });
  });

  it('has no step test where the spec names none', async () => {
    bench.credential = { ...erp, rotation: { every: '240h', hook: { set: 'erp-set' } } };
    await bench.settle();
    bench.end('Complete');
    await bench.settle();
    expect(bench.value()).toBe(bench.accepted);
    expect(bench.jobs).toHaveLength(1);
  });

  it('passes on how long a step may take and how often it is tried', async () => {
    const hook = { set: 'erp-set', timeout: '90s', maxRetries: 0 };
    bench.credential = { ...erp, rotation: { every: '240h', hook } };
    await bench.settle();
    expect(bench.jobs).toMatchObject([{ spec: { activeDeadlineSeconds: 90, backoffLimit: 0 } }]);
  });

  it('runs what its CronJob says, so that an approval of that covers it', async () => {
    await bench.settle();
    const codes = [
      ...bench.jobs.map((job) => projectWorkload('Job', job)),
      ...bench.client.all(resources.cronJobs).map((one) => projectWorkload('CronJob', one)),
    ].map(({ kind, metadata, codeDigest }) => ({ kind, name: metadata.name, codeDigest }));
    const [job] = codes;
    const template = codes.find(({ name }) => name === 'erp-set');
    expect(job).toMatchObject({ kind: 'Job', codeDigest: template?.codeDigest });
  });

  it('withdraws the value before at once in an emergency, when the new one works', async () => {
    await bench.publish();
    const first = bench.value();
    bench.emergency = 'INC-1';
    await bench.settle();
    expect(bench.value()).toBe(first);
    await bench.publish();
    expect(Object.keys(bench.secret?.data ?? {})).toEqual(['password']);
    expect(bench.value()).not.toBe(first);
    expect(bench.status.lastHandledEmergencyRotation).toBe('INC-1');
  });

  it('rotates once more for what is asked while a hook runs', async () => {
    await bench.publish();
    bench.nonce = 'one';
    await bench.settle();
    bench.nonce = 'two';
    await bench.publish();
    expect(bench.secret?.metadata.annotations?.[annotation.rotation]).toBe('2');
    expect(bench.status.lastHandledRotation).toBe('two');
  });

  it('looks for nothing by itself while a Job runs', async () => {
    await bench.publish();
    bench.now += 239 * hour + 59 * minute;
    await bench.settle();
    bench.now += hour;
    const { dueAt } = await bench.settle();
    expect(bench.running()).toEqual(['Set']);
    expect(dueAt === undefined || dueAt > bench.now).toBe(true);
  });

  it('says no value anywhere', async () => {
    await bench.publish();
    bench.nonce = 'x';
    await bench.settle();
    const values = Object.values(bench.secret?.data ?? {});
    bench.end('Failed');
    await bench.settle();
    const said = JSON.stringify([bench.said, bench.notices, bench.status, bench.jobs]);
    for (const value of values) {
      expect(said).not.toContain(value);
      expect(said).not.toContain(Buffer.from(value, 'base64').toString());
    }
  });
});

describe('a hook that fails', () => {
  it.each(['Set', 'Test'])('in %s keeps the value before, says so and waits', async (step) => {
    await bench.publish();
    bench.reasons();
    const first = bench.value();
    bench.nonce = 'x';
    await bench.settle();
    const next = bench.secret?.data?.['next.password'];
    if (step === 'Test') {
      bench.end('Complete');
      await bench.settle();
    }
    bench.end('Failed', 'DeadlineExceeded');
    const { problems, dueAt } = await bench.settle();
    expect(problems).toMatchObject([{ reason: 'RotationHookFailed' }]);
    expect(problems[0]?.message).toContain(`${step.toLowerCase()} of the hook`);
    expect(problems[0]?.message).toContain('DeadlineExceeded');
    expect(dueAt).toBe(bench.now + 10 * minute);
    expect(bench.reasons()).toEqual(['RotationHookFailed']);
    expect(bench.counted).toEqual(['error']);
    expect(bench.value()).toBe(first);
    expect(bench.running()).toEqual([]);

    // Ten minutes later with the same value, which the other system may have taken; from the start.
    bench.now += 10 * minute;
    await bench.settle();
    expect(bench.running()).toEqual(['Set']);
    expect(bench.secret?.data?.['next.password']).toBe(next);
    await bench.publish();
    expect(bench.value()).toBe(next);
    expect(bench.secret?.data?.['previous.password']).toBe(first);
  });

  it('waits ever longer, and goes on at once when somebody asks', async () => {
    await bench.publish();
    bench.nonce = 'x';
    const waits: number[] = [];
    for (let attempts = 0; attempts < 8; attempts++) {
      await bench.settle();
      bench.end('Failed');
      const { dueAt = 0 } = await bench.settle();
      waits.push((dueAt - bench.now) / minute);
      bench.now = dueAt;
    }
    expect(waits).toEqual([10, 20, 40, 80, 160, 320, 360, 360]);
    await bench.settle();
    bench.end('Failed');
    await bench.settle();
    bench.nonce = 'again';
    await bench.settle();
    expect(bench.running()).toEqual(['Set']);
    await bench.publish();
    expect(bench.status.lastHandledRotation).toBe('again');
    expect(bench.secret?.metadata.annotations?.[annotation.rotation]).toBe('1');
  });

  it('leaves its Jobs for a day, for whoever reads their logs', async () => {
    await bench.publish();
    expect(bench.jobs).toHaveLength(2);
    bench.now += 23 * hour;
    await bench.settle();
    expect(bench.jobs).toHaveLength(2);
    bench.now += 2 * hour;
    await bench.settle();
    expect(bench.jobs).toEqual([]);
  });

  it('publishes the value that waits when the hook leaves the spec', async () => {
    await bench.publish();
    const first = bench.value();
    bench.nonce = 'x';
    await bench.settle();
    const next = bench.secret?.data?.['next.password'];
    bench.credential = { ...erp, rotation: { every: '240h', overlap: '2h' } };
    await bench.settle();
    expect(bench.secret?.data).toEqual({ password: next, 'previous.password': first });
    expect(bench.running()).toEqual([]);
  });
});

describe('a hook that can’t run', () => {
  it.each<{ what: string; begin: () => void; says: string }>([
    {
      what: 'without its CronJob',
      begin: () => bench.client.remove(resources.cronJobs, { ...secretKey, name: 'erp-set' }),
      says: "CronJob erp-set doesn't exist",
    },
    {
      what: 'as somebody else',
      begin: () => bench.putCronJob('erp-set', { serviceAccountName: 'default' }),
      says: 'write serviceAccountName: poster',
    },
    {
      what: 'where it would run by a schedule too',
      begin: () => bench.putCronJob('erp-set', { suspend: false }),
      says: 'write suspend: true',
    },
    {
      what: 'where the API server refuses its Job',
      begin: () => {
        bench.client.beforeWrite = ({ kind }) => {
          if (kind !== 'Job') return;
          throw new ApiError('limit breached', { status: 403, reason: 'Forbidden' });
        };
      },
      says: 'limit breached',
    },
  ])('$what: the value waits, and its identity says why', async ({ begin, says }) => {
    begin();
    await bench.keep();
    const { problems, dueAt } = await bench.keep();
    expect(problems).toMatchObject([{ reason: 'RotationHookUnusable' }]);
    expect(problems[0]?.message).toContain(says);
    expect(dueAt).toBe(bench.now + minute);
    expect(bench.value()).toBeUndefined();

    bench.client.beforeWrite = () => undefined;
    bench.putCronJob('erp-set');
    await bench.publish();
    expect(bench.value()).toBe(bench.accepted);
  });

  it('takes over no Job of somebody else', async () => {
    await bench.settle();
    const [job] = bench.jobs;
    const { name } = job?.metadata ?? { name: '' };
    const theirs = { metadata: { name, namespace: 'billing' } };
    bench.client.remove(resources.jobs, theirs.metadata);
    bench.client.put(resources.jobs, theirs);
    const { problems } = await bench.keep();
    expect(problems).toMatchObject([{ reason: 'RotationHookUnusable' }]);
    expect(problems[0]?.message).toContain(name);
    expect(bench.jobs).toMatchObject([theirs]);
  });

  it('makes nothing while withheld, and goes on with what stands', async () => {
    bench.isWithheld = true;
    await bench.settle();
    expect(bench.secret).toBeUndefined();
    bench.isWithheld = false;
    await bench.settle();
    bench.isWithheld = true;
    bench.end('Complete');
    await bench.settle();
    expect(bench.running()).toEqual([]);
    expect(bench.value()).toBeUndefined();
    bench.isWithheld = false;
    await bench.publish();
    expect(bench.value()).toBe(bench.accepted);
  });
});

describe('a kill amid a hook', () => {
  it('takes its Jobs and its values away, and the release makes new ones, with their hook', async () => {
    await bench.publish();
    const first = bench.value();
    bench.nonce = 'x';
    await bench.settle();
    const next = bench.secret?.data?.['next.password'];
    await bench.kill();
    expect(bench.secret).toBeUndefined();
    expect(bench.running()).toEqual([]);

    await bench.settle();
    expect(bench.value()).toBeUndefined();
    expect([first, next]).not.toContain(bench.secret?.data?.['next.password']);
    await bench.publish();
    expect(bench.value()).toBe(bench.accepted);
    expect(bench.secret?.metadata.annotations?.[annotation.rotation]).toBe('1');
  });
});

class Crash extends Error {}

type Fate = 'before' | 'after';

/**
 * A first value, a rotation whose hook fails once, and an emergency, with work that is cut off at
 * its n-th write and then taken up again.
 */
async function story(
  type: GeneratedSecret['type'],
  at: number,
  fate: Fate,
): Promise<{ run: Bench; writes: number; made: string[]; violations: string[] }> {
  const run = new Bench();
  run.credential = { ...erp, type, ...(type === 'BasicAuth' && { username: 'svc' }) };
  const [secretPart] = keysOfType[type].toReversed();
  const made: string[] = [];
  const violations: string[] = [];
  let writes = 0;
  let isCut = false;
  const cut = (): void => {
    isCut = true;
    throw new Crash();
  };
  const check = ({ verb, kind }: Write): void => {
    if (kind === 'Job' && verb === 'create') {
      made.push(run.jobs.at(-1)?.metadata.name ?? '');
    }
    if (kind !== 'Secret' || run.accepted === undefined) return;
    const held = [secretPart, `next.${secretPart}`, `previous.${secretPart}`].map((key) =>
      run.value(key),
    );
    if (!held.includes(run.accepted)) violations.push('the value that works is lost');
  };
  run.client.beforeWrite = () => {
    if (++writes === at && fate === 'before') cut();
  };
  run.client.afterWrite = (write) => {
    check(write);
    if (writes === at && fate === 'after') cut();
  };
  const settle = async (): Promise<void> => {
    for (;;) {
      const { status } = run;
      isCut = false;
      await run.settle().catch((error: unknown) => {
        if (!isCut) throw error;
      });
      if (!isCut) return;
      // A process that was killed has not written it.
      run.status = status;
    }
  };
  const publish = async (): Promise<void> => {
    for (await settle(); run.running().length > 0; await settle()) run.end('Complete');
  };
  await publish();
  run.nonce = 'x';
  await settle();
  run.end('Failed');
  await settle();
  run.now += hour;
  await publish();
  run.emergency = 'INC-1';
  await publish();
  run.now += 30 * hour;
  await settle();
  return { run, writes, made, violations };
}

/** What was told just before is lost with the process, and no state. */
function endOf({ secret, status, jobs }: Bench): object {
  return {
    annotations: secret?.metadata.annotations,
    keys: Object.keys(secret?.data ?? {}).toSorted(),
    status,
    jobs,
  };
}

describe('a rotation with a hook, cut off before or after any write', () => {
  it.each(['Password', 'Token', 'BasicAuth', 'SSHKeyPair'] as const)(
    'of a %s never loses the value that works, runs no step twice, and ends alike',
    async (type) => {
      const reference = await story(type, 0, 'before');
      expect(reference.violations).toEqual([]);
      expect(reference.made).toHaveLength(7);
      for (let at = 1; at <= reference.writes; at++) {
        for (const fate of ['before', 'after'] as const) {
          const { run, made, violations } = await story(type, at, fate);
          const point = `write ${at}, ${fate}`;
          expect(violations, point).toEqual([]);
          expect(new Set(made).size, point).toBe(made.length);
          expect(made, point).toHaveLength(reference.made.length);
          expect(endOf(run), point).toEqual(endOf(reference.run));
          expect(run.value(keysOfType[type].toReversed()[0]), point).toBe(run.accepted);
        }
      }
    },
  );
});

describe('what a Secret says of a value that waits', () => {
  it('may be anything: a value is published in the end', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.string(), fc.json()), async (text) => {
        const run = new Bench();
        await run.settle();
        const { secret } = run;
        if (secret === undefined) return;
        const annotations = { [annotation.pendingRotation]: text };
        run.client.put(resources.secrets, {
          ...secret,
          metadata: { ...secret.metadata, annotations },
        });
        await run.publish();
        expect(run.value()).toBe(run.accepted);
        expect(Object.keys(run.secret?.data ?? {})).toEqual(['password']);
      }),
      { numRuns: 100 },
    );
  });
});
