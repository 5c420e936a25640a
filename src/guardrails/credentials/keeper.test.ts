import * as fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import type {
  AutomationIdentity,
  AutomationIdentityStatus,
  GeneratedSecret,
  SecretEntry,
} from '../../api/automation-identity.ts';
import { annotation } from '../../api/names.ts';
import type { KubeObject, Secret } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import { projectWorkload, type Workload } from '../../api/workload.ts';
import type { Logger } from '../../observability/logger.ts';
import { ApiError } from '../../runtime/errors.ts';
import type { IndexedStore } from '../../runtime/merged-store.ts';
import { podSecretKeys, projectPod } from '../kill-switch/pods.ts';
import { MemoryClient, type Write } from '../identity/memory-client.testing.ts';
import { noSecretStore } from '../secret-store/store.ts';
import { CredentialCopies } from './copies.ts';
import { keysOfType } from './generate.ts';
import { seededBytes } from './random.testing.ts';
import { RevokedTokens } from './revoked-tokens.ts';
import { CredentialKeeper, type CredentialsOutcome, type Notice } from './keeper.ts';

const second = 1000;
const hour = 3_600_000;
const start = Date.parse('2026-05-01T00:00:00Z');

const erp: GeneratedSecret = {
  name: 'erp',
  type: 'Password',
  rotation: { every: '24h', overlap: '2h', restartConsumers: true },
};
const secretKey = { namespace: 'billing', name: 'aid.poster.erp' };

/** One identity, its keeper, and everything that they may say. */
class Bench {
  now = start;
  credentials: SecretEntry[] = [erp];
  isWithheld = false;
  isKilled = false;
  nonce: string | undefined;
  emergency: string | undefined;
  owner: { team?: string; contact?: string } = { team: 'finance', contact: 'a@example.com' };
  status: AutomationIdentityStatus = {};
  readonly client = new MemoryClient(() => this.now);
  readonly notices: Notice[] = [];
  readonly said: string[] = [];
  readonly counted: string[] = [];
  readonly #keeper: CredentialKeeper;

  constructor() {
    this.#keeper = new CredentialKeeper({
      client: this.client,
      workloads: this.#workloads(),
      pods: {
        byIndex: (_index, key) =>
          this.client
            .all(resources.pods)
            .map(projectPod)
            .filter((pod) => podSecretKeys(pod).includes(key)),
      },
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
      spec: { owner: this.owner, secrets: this.credentials },
      status: this.status,
    };
  }

  get secret(): Secret | undefined {
    return this.client.find(resources.secrets, secretKey);
  }

  value(key = 'password'): string | undefined {
    return this.secret?.data?.[key];
  }

  annotationOf(name: string): string | undefined {
    return this.secret?.metadata.annotations?.[name];
  }

  /** One look, whose outcome goes to status. */
  async keep(): Promise<CredentialsOutcome> {
    const { identity, isWithheld, isKilled } = this;
    const outcome = await this.#keeper.keep({
      identity,
      credentials: this.credentials,
      childMetadata: (name) => ({
        name,
        namespace: 'billing',
        ownerReferences: [
          { apiVersion: 'v1', kind: 'K', name: 'poster', uid: 'uid-of-poster', controller: true },
        ],
      }),
      tier: 'test',
      isWithheld,
      isKilled,
      notify: (notice) => this.notices.push(notice),
      signal: new AbortController().signal,
      log: this.#log(),
    });
    this.said.push(JSON.stringify(outcome));
    this.status = {
      secrets: outcome.secrets,
      ...(outcome.lastHandledRotation !== undefined && {
        lastHandledRotation: outcome.lastHandledRotation,
      }),
      ...(outcome.lastHandledEmergencyRotation !== undefined && {
        lastHandledEmergencyRotation: outcome.lastHandledEmergencyRotation,
      }),
    };
    return outcome;
  }

  /** As a kill does. */
  async withdraw(): Promise<void> {
    const { signal } = new AbortController();
    const log = this.#log();
    const { secrets } = await this.#keeper.withdraw(
      this.identity,
      { secrets: this.credentials },
      {
        signal,
        log,
        notify: (notice) => this.notices.push(notice),
      },
    );
    this.status = { ...this.status, secrets };
  }

  /** Looks until there is nothing more to write at this time. */
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

  addConsumer(name: string, { replicas = 1, serviceAccountName = 'other' } = {}): void {
    const template = {
      spec: {
        serviceAccountName,
        containers: [{ envFrom: [{ secretRef: { name: 'aid.poster.erp' } }] }],
      },
    };
    this.client.put(resources.deployments, {
      metadata: { name, namespace: 'billing' },
      spec: { replicas, template },
    } as KubeObject);
  }

  /** A rollout ends, or its pods fail. */
  setAvailable(name: string, isAvailable: boolean): void {
    const key = { namespace: 'billing', name };
    const found = this.client.find(resources.deployments, key)!;
    const status = { replicas: 1, updatedReplicas: 1, availableReplicas: isAvailable ? 1 : 0 };
    this.client.put(resources.deployments, { ...found, status } as KubeObject);
  }

  /** A pod that reads the Secret when it starts, which is now. */
  startPod(name: string, parts: { serviceAccountName?: string } = {}): void {
    this.client.put(resources.pods, {
      metadata: { name, namespace: 'billing' },
      spec: {
        serviceAccountName: 'other',
        ...parts,
        containers: [{ envFrom: [{ secretRef: { name: 'aid.poster.erp' } }] }],
      },
      status: { phase: 'Running', startTime: new Date(this.now).toISOString() },
    } as KubeObject);
  }

  restartedAt(name: string): string | undefined {
    const deployment = this.client.find(resources.deployments, { namespace: 'billing', name });
    return deployment && projectWorkload('Deployment', deployment).restartedAt;
  }

  reasons(): string[] {
    return this.notices.splice(0).map(({ reason }) => reason);
  }

  #workloads(): IndexedStore<Workload> {
    const list = (): Workload[] =>
      this.client.all(resources.deployments).map((d) => projectWorkload('Deployment', d));
    return {
      list,
      byIndex: (_index, key) =>
        list().filter(({ metadata, secretNames }) =>
          secretNames.some((name) => `${metadata.namespace}/${name}` === key),
        ),
    };
  }

  #log(): Logger {
    const say = (...parts: unknown[]): void => {
      this.said.push(parts.map(textOf).join(' '));
    };
    return { debug: say, info: say, warn: say, error: say, child: () => this.#log() };
  }
}

function textOf(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) =>
    item instanceof Error ? `${item.message} ${item.stack}` : item,
  );
}

let bench: Bench;

beforeEach(() => {
  bench = new Bench();
});

describe('CredentialKeeper', () => {
  it('puts the name into status before it creates the Secret', async () => {
    const { problems, secrets } = await bench.keep();
    expect(problems.map(({ reason }) => reason)).toEqual(['Provisioning']);
    expect(secrets).toEqual([{ name: 'erp', secretName: 'aid.poster.erp' }]);
    expect(bench.client.writes).toEqual([]);

    expect((await bench.settle()).problems).toEqual([]);
    expect(bench.secret).toMatchObject({
      type: 'Opaque',
      metadata: {
        annotations: {
          [annotation.rotatedAt]: '2026-05-01T00:00:00.000Z',
          [annotation.rotation]: '0',
        },
      },
    });
    expect(Buffer.from(bench.value() ?? '', 'base64').toString()).toHaveLength(32);
    expect(bench.reasons()).toEqual(['SecretCreated']);
  });

  it('rotates by annotation once, keeps the previous value for the overlap, then withdraws it', async () => {
    await bench.settle();
    const first = bench.value();
    bench.nonce = 'incident-7';
    await bench.settle();
    expect(bench.value()).not.toBe(first);
    expect(bench.value('previous.password')).toBe(first);
    expect(bench.status.lastHandledRotation).toBe('incident-7');
    const rotated = bench.value();

    bench.now += 2 * hour - 1;
    await bench.settle();
    expect(bench.value('previous.password')).toBe(first);
    bench.now += 1;
    await bench.settle();
    expect(bench.secret?.data).toEqual({ password: rotated });
    expect(bench.annotationOf(annotation.previousExpiresAt)).toBeUndefined();
    expect(bench.counted).toEqual(['success']);
    expect(bench.reasons()).toEqual(['SecretCreated', 'Rotated', 'PreviousWithdrawn']);
  });

  it('keeps the previous value until the last pod that read it is gone', async () => {
    await bench.settle();
    bench.startPod('old');
    bench.startPod('killed', { serviceAccountName: 'poster' });
    const first = bench.value();
    bench.now += 1000;
    bench.nonce = 'x';
    await bench.settle();
    bench.now += 10 * second;
    bench.startPod('new');
    bench.now += 2 * hour;
    expect(await bench.settle()).toMatchObject({ overdue: [], dueAt: bench.now + 15 * second });
    expect(bench.value('previous.password')).toBe(first);
    expect(bench.status.secrets).toMatchObject([{ state: 'Converging' }]);

    bench.now += hour;
    const { overdue, problems } = await bench.settle();
    expect(problems).toEqual([]);
    expect(overdue).toMatchObject([{ reason: 'ConvergenceOverdue' }]);
    expect(overdue[0]?.message).toContain('2 running pods may still use it, Pod old, Pod killed.');
    expect(bench.value('previous.password')).toBe(first);

    bench.isKilled = true;
    bench.client.remove(resources.pods, { namespace: 'billing', name: 'old' });
    expect((await bench.settle()).overdue).toEqual([]);
    expect(bench.value('previous.password')).toBeUndefined();
    expect(bench.status.secrets).toMatchObject([{ state: 'Retired' }]);
  });

  it('does not carry out a nonce again that was taken away meanwhile', async () => {
    bench.nonce = 'once';
    await bench.settle();
    bench.nonce = undefined;
    bench.now += 24 * hour;
    await bench.settle();
    const value = bench.value();
    bench.nonce = 'once';
    await bench.settle();
    expect(bench.value()).toBe(value);
  });

  it('leaves nothing but the new value after an emergency, also within an overlap', async () => {
    await bench.settle();
    bench.nonce = 'routine';
    await bench.settle();
    const leaked = bench.value();
    bench.emergency = 'leaked on 1 May';
    await bench.settle();
    expect(Object.keys(bench.secret?.data ?? {})).toEqual(['password']);
    expect(bench.value()).not.toBe(leaked);
    expect(bench.annotationOf(annotation.previousExpiresAt)).toBeUndefined();
    expect(bench.status).toMatchObject({
      lastHandledRotation: 'routine',
      lastHandledEmergencyRotation: 'leaked on 1 May',
    });
    expect(bench.counted).toHaveLength(2);

    bench.client.remove(resources.secrets, secretKey);
    await bench.settle();
    const value = bench.value();
    bench.emergency = undefined;
    await bench.settle();
    bench.emergency = 'leaked on 1 May';
    await bench.settle();
    expect(bench.value()).toBe(value);
  });

  it('leaves no previous value after an emergency either where the standing one was taken out', async () => {
    await bench.settle();
    bench.nonce = 'routine';
    await bench.settle();
    const { password: _, ...data } = bench.secret!.data!;
    expect(Object.keys(data)).toEqual(['previous.password']);
    bench.client.put(resources.secrets, { ...bench.secret!, data });
    bench.emergency = 'leaked';
    await bench.settle();
    expect(Object.keys(bench.secret?.data ?? {})).toEqual(['password']);
  });

  it('rotates once when the owner changes, and not while half of it is written', async () => {
    await bench.settle();
    const first = bench.value();
    bench.owner = { team: 'hr' };
    await bench.settle();
    expect(bench.value()).toBe(first);
    bench.owner = { team: 'hr', contact: 'b@example.com' };
    await bench.settle();
    expect(bench.value('previous.password')).toBe(first);
    bench.owner = { team: ' hr ', contact: 'b@example.com' };
    await bench.settle();
    expect(bench.counted).toEqual(['success']);
    expect(bench.notices.at(-1)?.message).toContain('the owner is another one');
  });

  it('doesn’t rotate what stood before owners were recorded, but takes note', async () => {
    await bench.settle();
    const { metadata, ...rest } = bench.secret!;
    const { [annotation.ownerDigest]: _, ...annotations } = metadata.annotations!;
    const first = bench.value();
    bench.client.put(resources.secrets, { ...rest, metadata: { ...metadata, annotations } });
    await bench.settle();
    expect(bench.value()).toBe(first);
    bench.owner = { team: 'hr', contact: 'b@example.com' };
    await bench.settle();
    expect(bench.value()).not.toBe(first);
  });

  it('restarts each consumer once for a rotation, and none for the first value', async () => {
    bench.addConsumer('before');
    bench.addConsumer('idle', { replicas: 0 });
    await bench.settle();
    expect(bench.restartedAt('before')).toBeUndefined();

    bench.now += 24 * hour;
    await bench.settle();
    expect(bench.restartedAt('before')).toBe('2026-05-02T00:00:00.000Z');
    expect(bench.restartedAt('idle')).toBeUndefined();
    expect(bench.annotationOf(annotation.consumersRestarted)).toBeUndefined();

    bench.now += 10 * second;
    bench.addConsumer('after');
    await bench.settle();
    expect(bench.annotationOf(annotation.consumersRestarted)).toBe('1');
    expect(bench.restartedAt('after')).toBeUndefined();

    // An apply that drops the annotation is no reason for another restart.
    bench.addConsumer('before');
    await bench.settle();
    expect(bench.restartedAt('before')).toBeUndefined();
    expect(bench.reasons()).toEqual(['SecretCreated', 'Rotated', 'ConsumersRestarted']);
  });

  it('takes three writes of the Secret and one of the consumer for a rotation, and none without', async () => {
    bench.addConsumer('reader');
    bench.setAvailable('reader', true);
    await bench.settle();
    const before = bench.client.writes.length;
    bench.nonce = 'x';
    for (let minutes = 0; minutes < 180; minutes++) {
      await bench.settle();
      bench.setAvailable('reader', true);
      bench.now += 60 * second;
    }
    const writes = bench.client.writes.slice(before).map(({ verb, kind }) => `${verb} ${kind}`);
    expect(writes).toEqual(['patch Secret', 'patch Deployment', 'patch Secret', 'patch Secret']);
  });

  it('says once what happens to several Secrets at a time', async () => {
    bench.credentials = [erp, { ...erp, name: 'crm' }];
    await bench.settle();
    bench.nonce = 'both';
    await bench.settle();
    bench.now += 2 * hour;
    await bench.settle();
    const who = 'Secrets aid.poster.crm, aid.poster.erp';
    expect(bench.notices.map(({ message }) => message)).toEqual([
      `${who} were created.`,
      `${who} have new values: a rotation was asked for.`,
      `The previous values of ${who} were withdrawn.`,
    ]);
  });

  it('restarts a consumer of two rotated Secrets once', async () => {
    bench.credentials = [erp, { ...erp, name: 'crm' }];
    bench.addConsumer('reader');
    await bench.settle();
    bench.nonce = 'both';
    await bench.settle();
    const restarts = bench.client.writes.filter(({ kind }) => kind === 'Deployment');
    expect(restarts).toHaveLength(1);
  });

  it('restarts consumers for each of two rotations in the same millisecond', async () => {
    bench.addConsumer('reader');
    await bench.settle();
    bench.nonce = 'one';
    await bench.settle();
    const first = bench.restartedAt('reader');
    bench.nonce = 'two';
    await bench.settle();
    expect(bench.restartedAt('reader')).not.toBe(first);
  });

  it('leaves the workloads of a killed identity alone, and others not', async () => {
    bench.addConsumer('poster', { serviceAccountName: 'poster' });
    bench.addConsumer('reader');
    await bench.settle();
    bench.isKilled = true;
    bench.nonce = 'incident-7';
    await bench.settle();
    expect(bench.restartedAt('poster')).toBeUndefined();
    expect(bench.restartedAt('reader')).toBeDefined();

    bench.isKilled = false;
    await bench.settle();
    expect(bench.restartedAt('poster')).toBeDefined();
  });

  it('restarts nobody for the value that a release makes, where all start anew', async () => {
    bench.addConsumer('poster', { serviceAccountName: 'poster' });
    await bench.settle();
    bench.now += hour;
    bench.client.remove(resources.secrets, secretKey);
    bench.isKilled = true;
    await bench.settle();
    bench.isKilled = false;
    bench.now += hour;
    await bench.settle();
    expect(bench.restartedAt('poster')).toBeUndefined();
  });

  it('restarts whoever held the value that a release replaces, and was not stopped', async () => {
    bench.addConsumer('reader');
    await bench.settle();
    bench.now += hour;
    bench.client.remove(resources.secrets, secretKey);
    bench.isKilled = true;
    await bench.settle();
    expect(bench.restartedAt('reader')).toBeDefined();
  });

  it('restarts as many at a time as the spec allows, the next when those are available again', async () => {
    const names = ['a', 'b', 'c', 'd'];
    bench.credentials = [{ ...erp, rotation: { ...erp.rotation, maxConcurrentRestarts: 2 } }];
    for (const name of names) {
      bench.addConsumer(name);
      bench.setAvailable(name, true);
    }
    bench.client.afterWrite = ({ kind, name }) => {
      if (kind === 'Deployment') bench.setAvailable(name, false);
    };
    await bench.settle();
    bench.nonce = 'x';
    const restarted = (): string[] => names.filter((name) => bench.restartedAt(name));
    await bench.settle();
    expect(restarted()).toEqual(['a', 'b']);
    bench.now += 10 * second;
    await bench.settle();
    expect(restarted()).toEqual(['a', 'b']);
    expect(bench.annotationOf(annotation.consumersRestarted)).toBeUndefined();

    bench.setAvailable('b', true);
    expect((await bench.settle()).problems).toEqual([]);
    expect(restarted()).toEqual(['a', 'b', 'c']);

    bench.now += hour;
    const { problems, dueAt } = await bench.settle();
    expect(problems).toMatchObject([{ reason: 'RestartsWaiting' }]);
    expect(problems[0]?.message).toContain('Not available again: Deployment a, Deployment c.');
    expect(dueAt).toBe(bench.now + 60 * second);

    for (const name of ['a', 'c']) bench.setAvailable(name, true);
    await bench.settle();
    bench.setAvailable('d', true);
    expect((await bench.settle()).problems).toEqual([]);
    expect(restarted()).toEqual(names);
    expect(bench.annotationOf(annotation.consumersRestarted)).toBe('1');
    const restarts = bench.client.writes.filter(({ kind }) => kind === 'Deployment');
    expect(restarts.map(({ name }) => name)).toEqual(names);
  });

  it('looks again at once when the restarts are done, to say so', async () => {
    bench.addConsumer('reader');
    await bench.settle();
    bench.nonce = 'x';
    await bench.settle();
    expect(bench.status.secrets).toMatchObject([{ state: 'Published' }]);
    bench.now += 10 * second;
    expect((await bench.keep()).dueAt).toBe(bench.now);
    await bench.keep();
    expect(bench.status.secrets).toMatchObject([{ state: 'Converging' }]);
  });

  it('reports consumers that can’t be restarted, and goes on trying', async () => {
    bench.addConsumer('reader');
    await bench.settle();
    bench.client.beforeWrite = ({ kind }) => {
      if (kind === 'Deployment') throw new ApiError('policy says no', { status: 403 });
    };
    bench.nonce = 'x';
    const { problems, dueAt } = await bench.keep();
    expect(problems).toMatchObject([{ reason: 'ConsumersNotRestarted' }]);
    expect(problems[0]?.message).toContain('Deployment reader');
    expect(dueAt).toBe(bench.now + 5 * second);
    bench.client.beforeWrite = () => undefined;
    bench.now += 10 * second;
    expect((await bench.settle()).problems).toEqual([]);
    expect(bench.restartedAt('reader')).toBeDefined();
  });

  it.each<[string, NonNullable<GeneratedSecret['rotation']>, string]>([
    ['RotationNeverDue', { schedule: '0 0 31 2 *' }, 'no date fits'],
    ['RotationUnreadable', { schedule: '0 3 * * *', timeZone: 'Mars/Olympus' }, 'timeZone'],
    ['OverlapTooLong', { schedule: '0 * * * *', overlap: '1h' }, 'overlap'],
  ])('says %s, once, and rotates by the nonce all the same', async (reason, settings, text) => {
    bench.credentials = [{ ...erp, rotation: settings }];
    const { problems, dueAt } = await bench.settle();
    expect(problems).toMatchObject([{ reason }]);
    expect(problems[0]?.message).toContain(`Credential erp is not rotated as asked: `);
    expect(problems[0]?.message).toContain(text);
    if (reason !== 'OverlapTooLong') expect(dueAt).toBeUndefined();
    const first = bench.value();
    bench.nonce = 'x';
    await bench.settle();
    expect(bench.value()).not.toBe(first);
  });

  it('creates nothing while withheld, and goes on rotating what stands', async () => {
    bench.isWithheld = true;
    await bench.settle();
    expect(bench.secret).toBeUndefined();
    bench.isWithheld = false;
    await bench.settle();
    const value = bench.value();
    bench.isWithheld = true;
    bench.now += 24 * hour;
    await bench.settle();
    expect(bench.value()).not.toBe(value);
  });

  it('makes a deleted Secret anew, and restarts those who hold its value', async () => {
    bench.addConsumer('reader');
    await bench.settle();
    bench.now += hour;
    bench.client.remove(resources.secrets, secretKey);
    await bench.settle();
    expect(bench.value()).toBeDefined();
    expect(bench.restartedAt('reader')).toBe('2026-05-01T01:00:00.000Z');
  });

  it('deletes the Secret of an entry that left the spec', async () => {
    await bench.settle();
    bench.credentials = [];
    await bench.settle();
    expect(bench.secret).toBeUndefined();
    expect(bench.status.secrets).toEqual([]);
    expect(bench.reasons()).toEqual(['SecretCreated', 'SecretDeleted']);
  });

  it('never touches a Secret that somebody else made, whatever happens', async () => {
    const foreign = bench.client.put(resources.secrets, {
      metadata: secretKey,
      data: { password: 'dGhlaXJz' },
    });
    bench.nonce = 'x';
    const { problems } = await bench.settle();
    expect(problems).toMatchObject([{ reason: 'ForeignObject' }]);
    expect(problems[0]?.message).toContain('kubectl -n billing delete secrets aid.poster.erp');
    bench.credentials = [];
    await bench.settle();
    expect(bench.secret).toEqual(foreign);
    expect(bench.client.writes).toEqual([]);
    expect(bench.client.gets.every(({ metadataOnly }) => metadataOnly)).toBe(true);
  });

  it('watches an existing Secret by its metadata alone, and never changes or deletes it', async () => {
    const watched: SecretEntry = {
      name: 'bank',
      type: 'Existing',
      secretName: 'bank-api',
      rotation: { every: '24h' },
    };
    const key = { namespace: 'billing', name: 'bank-api' };
    bench.credentials = [watched, erp];
    expect((await bench.settle()).problems).toMatchObject([{ reason: 'SecretMissing' }]);
    const theirs = bench.client.put(resources.secrets, {
      metadata: key,
      data: { key: 'Y2FuYXJ5' },
    });
    expect((await bench.settle()).problems).toEqual([]);
    expect(bench.status.secrets).toMatchObject([
      { name: 'bank', secretName: 'bank-api', lastRotationTime: '2026-05-01T00:00:00Z' },
      { name: 'erp', secretName: 'aid.poster.erp' },
    ]);
    bench.nonce = 'x';
    bench.now += 24 * hour;
    const { overdue, lastHandledRotation } = await bench.settle();
    expect(overdue).toMatchObject([{ reason: 'SecretOverdue' }]);
    expect(lastHandledRotation).toBe('x');

    await bench.withdraw();
    expect(bench.status.secrets).toMatchObject([{ name: 'bank' }, { name: 'erp' }]);
    bench.credentials = [];
    await bench.settle();
    expect(bench.client.find(resources.secrets, key)).toEqual(theirs);
    const reads = bench.client.gets.filter(({ name }) => name === 'bank-api');
    expect(reads.length).toBeGreaterThan(3);
    expect(reads.every(({ metadataOnly }) => metadataOnly)).toBe(true);
    expect(bench.client.writes.filter(({ name }) => name === 'bank-api')).toEqual([]);
    expect(bench.said.join()).not.toContain('Y2FuYXJ5');
  });

  it('deletes what it generated when the entry becomes a watch, and generates anew when back', async () => {
    await bench.settle();
    bench.credentials = [{ name: 'erp', type: 'Existing', secretName: 'theirs' }];
    bench.client.put(resources.secrets, { metadata: { namespace: 'billing', name: 'theirs' } });
    await bench.settle();
    expect(bench.secret).toBeUndefined();
    bench.credentials = [erp];
    await bench.settle();
    expect(bench.annotationOf(annotation.rotation)).toBe('0');
    expect(bench.client.find(resources.secrets, { ...secretKey, name: 'theirs' })).toBeDefined();
  });

  it('removes the keys of the type that it had before', async () => {
    await bench.settle();
    bench.nonce = 'x';
    await bench.settle();
    bench.credentials = [{ ...erp, type: 'Token' }];
    await bench.settle();
    expect(Object.keys(bench.secret?.data ?? {})).toEqual(['token']);
  });

  it('keeps both halves of a key pair for the overlap', async () => {
    bench.credentials = [{ ...erp, type: 'SSHKeyPair' }];
    await bench.settle();
    const first = bench.secret?.data;
    bench.nonce = 'x';
    await bench.settle();
    expect(bench.secret?.data).toMatchObject({
      'previous.ssh-privatekey': first?.['ssh-privatekey'],
      'previous.ssh-publickey': first?.['ssh-publickey'],
    });
    bench.now += 2 * hour;
    await bench.settle();
    expect(Object.keys(bench.secret?.data ?? {}).toSorted()).toEqual([
      'ssh-privatekey',
      'ssh-publickey',
    ]);
  });

  it('makes a new password for another username, and keeps the pair before for the overlap', async () => {
    const basicAuth = { ...erp, type: 'BasicAuth' as const, username: 'svc-old' };
    bench.credentials = [basicAuth];
    await bench.settle();
    const first = bench.value();
    bench.credentials = [{ ...basicAuth, username: 'svc-new' }];
    bench.isWithheld = true;
    await bench.settle();
    expect(bench.value()).toBe(first);
    bench.isWithheld = false;
    await bench.settle();
    expect(bench.secret?.data).toMatchObject({
      username: Buffer.from('svc-new').toString('base64'),
      'previous.username': Buffer.from('svc-old').toString('base64'),
      'previous.password': first,
    });
    expect(bench.value()).not.toBe(first);
    expect(bench.annotationOf(annotation.rotation)).toBe('1');
  });

  it('keeps the password that stood when its type becomes BasicAuth', async () => {
    await bench.settle();
    const first = bench.value();
    bench.credentials = [{ ...erp, type: 'BasicAuth', username: 'svc-erp' }];
    await bench.settle();
    expect(bench.value('username')).toBeDefined();
    expect(bench.value('previous.password')).toBe(first);
    expect(bench.value('previous.username')).toBeUndefined();
  });

  it.each([
    { status: 403, reason: 'Forbidden' },
    { status: 422, reason: 'Invalid' },
  ])(
    'reports a rotation that is refused ($status) without repeating the answer',
    async (refusal) => {
      await bench.settle();
      bench.client.beforeWrite = () => {
        throw new ApiError('admission webhook denied: password=canary', refusal);
      };
      bench.nonce = 'x';
      const { problems, lastHandledRotation, dueAt } = await bench
        .settle()
        .catch(() => bench.keep());
      expect(problems).toMatchObject([{ reason: 'RotationFailed' }]);
      expect(lastHandledRotation).toBeUndefined();
      expect(dueAt).toBe(bench.now + 60 * second);
      expect(bench.counted).toContain('error');
      expect(bench.said.join('\n')).not.toContain('canary');
    },
  );

  it('throws what a retry may cure, without repeating the answer', async () => {
    await bench.settle();
    bench.nonce = 'x';
    bench.client.beforeWrite = () => {
      throw new ApiError('timeout while storing password=canary', { status: 500 });
    };
    const error: unknown = await bench.keep().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'KUBE_API_ERROR', status: 500 });
    expect(textOf(error)).not.toContain('canary');
  });

  it('writes nothing over a version that it didn’t see', async () => {
    await bench.settle();
    bench.nonce = 'x';
    bench.client.beforeWrite = ({ verb }) => {
      if (verb !== 'patch') return;
      bench.client.beforeWrite = () => undefined;
      bench.client.put(resources.secrets, { ...bench.secret!, data: { password: 'bmV3ZXI=' } });
    };
    await expect(bench.keep()).rejects.toMatchObject({ status: 409 });
    expect(bench.value()).toBe('bmV3ZXI=');
    await bench.settle();
    expect(bench.value('previous.password')).toBe('bmV3ZXI=');
  });

  it('says no value anywhere', async () => {
    bench.addConsumer('reader');
    const values = new Set<string>();
    for (let round = 0; round < 5; round++) {
      bench.nonce = String(round);
      await bench.settle();
      for (const value of Object.values(bench.secret?.data ?? {})) {
        values.add(value).add(Buffer.from(value, 'base64').toString());
      }
      bench.now += hour;
    }
    expect(values.size).toBeGreaterThan(8);
    const said = [
      ...bench.said,
      JSON.stringify(bench.notices),
      JSON.stringify(bench.status),
    ].join();
    for (const value of values) expect(said).not.toContain(value);
  });
});

type Command =
  | { op: 'wait'; milliseconds: number }
  | { op: 'rotate' }
  | { op: 'emergency' }
  | { op: 'changeOwner' }
  | { op: 'unset' }
  | { op: 'addConsumer' }
  /** Work that is cut off around its n-th write, or before status is written. */
  | { op: 'keep'; cut: { write: number; after: boolean } | 'status' | undefined };

const commands = fc.array(
  fc.oneof(
    fc.record({
      op: fc.constant('wait' as const),
      milliseconds: fc.constantFrom(1, 700, 6000, hour, 2 * hour, 23 * hour, 24 * hour, 200 * hour),
    }),
    fc.record({ op: fc.constant('rotate' as const) }),
    fc.record({ op: fc.constant('emergency' as const) }),
    fc.record({ op: fc.constant('changeOwner' as const) }),
    fc.record({ op: fc.constant('unset' as const) }),
    fc.record({ op: fc.constant('addConsumer' as const) }),
    fc.record({
      op: fc.constant('keep' as const),
      cut: fc.oneof(
        fc.record({ write: fc.integer({ min: 1, max: 4 }), after: fc.boolean() }),
        fc.constant('status' as const),
        fc.constant(undefined),
      ),
    }),
  ),
  { maxLength: 25 },
);

class Crash extends Error {}

/** A credential of each type, alike in all else. */
const credentialOfAnyType = fc
  .constantFrom('Password', 'Token', 'BasicAuth', 'SSHKeyPair')
  .map((type: GeneratedSecret['type']): GeneratedSecret => ({
    ...erp,
    type,
    ...(type === 'BasicAuth' && { username: 'svc-erp' }),
  }));

/** Runs the commands; with `cuts`, work is cut off where they say, and then taken up again. */
async function runThrough(
  sequence: readonly Command[],
  cuts: boolean,
  credential: GeneratedSecret = erp,
) {
  const run = new Bench();
  run.credentials = [credential];
  const keys: readonly string[] = keysOfType[credential.type];
  // What stays when the value is another one.
  const secretKeys = keys.filter((key) => key !== 'username');
  const answered = new Map<string, number>();
  let nonces = 0;
  let consumers = 0;
  let before: Secret | undefined;
  const violations: string[] = [];
  const emergencyOf = (secret: Secret | undefined): string | undefined =>
    secret?.metadata.annotations?.[annotation.handledEmergency];
  const checkSecret = ({ kind }: Write): void => {
    const { secret } = run;
    if (kind !== 'Secret' || secret === undefined) return;
    const { data = {} } = secret;
    const known = new Set(keys.flatMap((key) => [key, `previous.${key}`]));
    if (Object.keys(data).some((key) => !known.has(key))) violations.push('other keys');
    const previous = keys.filter((key) => data[`previous.${key}`] !== undefined);
    if (previous.length > 0 && previous.length < keys.length) violations.push('half a value');
    for (const key of keys) {
      const lost = before?.data?.[key];
      if (data[key] === undefined) violations.push('no value');
      if (emergencyOf(before) !== emergencyOf(secret)) {
        if (before !== undefined && previous.length > 0) violations.push('an overlap');
      } else if (lost !== undefined && lost !== data[key] && lost !== data[`previous.${key}`]) {
        violations.push('a value vanished without overlap');
      }
    }
    const changed = secretKeys.filter((key) => data[key] !== before?.data?.[key]);
    if (changed.length > 0 && changed.length < secretKeys.length) violations.push('mixed values');
    const nonce = secret.metadata.annotations?.[annotation.handledRotation];
    if (
      nonce !== undefined &&
      nonce !== before?.metadata.annotations?.[annotation.handledRotation]
    ) {
      answered.set(nonce, (answered.get(nonce) ?? 0) + 1);
    }
    before = secret;
  };
  const restarts = new Set<string>();
  const checkRestart = ({ kind, name }: Write): void => {
    if (kind !== 'Deployment') return;
    const restart = `${name} ${run.restartedAt(name)}`;
    if (restarts.has(restart)) violations.push('a second restart');
    restarts.add(restart);
    run.setAvailable(name, true);
  };
  const check = (write: Write): void => {
    checkSecret(write);
    checkRestart(write);
  };
  const cutAt = (cut: { write: number; after: boolean }): void => {
    let writes = 0;
    run.client.beforeWrite = () => {
      if (++writes === cut.write && !cut.after) throw new Crash();
    };
    run.client.afterWrite = (write) => {
      check(write);
      if (writes === cut.write && cut.after) throw new Crash();
    };
  };
  const uncut = (): void => {
    run.client.beforeWrite = () => undefined;
    run.client.afterWrite = check;
  };

  uncut();
  for (const command of sequence) {
    switch (command.op) {
      case 'wait':
        run.now += command.milliseconds;
        break;
      case 'rotate':
        run.nonce = `nonce-${++nonces}`;
        break;
      case 'emergency':
        run.emergency = `emergency-${++nonces}`;
        break;
      case 'changeOwner':
        run.owner = { team: `team-${++nonces}`, contact: 'a@example.com' };
        break;
      case 'unset':
        run.nonce = undefined;
        break;
      case 'addConsumer':
        run.addConsumer(`consumer-${++consumers}`);
        break;
      case 'keep':
        if (cuts && command.cut === 'status') {
          const { status } = run;
          await run.keep();
          run.status = status;
        } else if (cuts && command.cut !== undefined && command.cut !== 'status') {
          cutAt(command.cut);
          await run.keep().catch(() => undefined);
          uncut();
        }
        await run.settle();
    }
  }
  await run.settle();
  run.now += 6 * second;
  await run.settle();
  return {
    violations,
    answered,
    nonce: run.nonce,
    emergency: run.emergency,
    rotatedAt: run.annotationOf(annotation.rotatedAt) ?? '',
    rotation: run.annotationOf(annotation.rotation),
    end: {
      annotations: run.secret?.metadata.annotations,
      keys: Object.keys(run.secret?.data ?? {}).toSorted(),
      status: run.status,
      restarts: run.client.all(resources.deployments).map(({ metadata }) => ({
        name: metadata.name,
        created: metadata.creationTimestamp ?? '',
        restartedAt: run.restartedAt(metadata.name),
      })),
    },
  };
}

describe('CredentialKeeper, cut off at any point', () => {
  it('always leaves a valid value and at most two, and answers each nonce once', async () => {
    await fc.assert(
      fc.asyncProperty(commands, credentialOfAnyType, async (sequence, credential) => {
        const { violations, answered, nonce, emergency, end } = await runThrough(
          sequence,
          true,
          credential,
        );
        expect(violations).toEqual([]);
        for (const times of answered.values()) expect(times).toBe(1);
        if (nonce !== undefined) {
          expect(answered.get(nonce)).toBe(1);
          expect(end.status.lastHandledRotation).toBe(nonce);
        }
        expect(end.status.lastHandledEmergencyRotation).toBe(emergency);
      }),
      { numRuns: 300 },
    );
  });

  it('comes to the same end as work that isn’t cut off', async () => {
    await fc.assert(
      fc.asyncProperty(commands, async (sequence) => {
        const undisturbed = await runThrough(sequence, false);
        const cut = await runThrough(sequence, true);
        expect(cut.end).toEqual(undisturbed.end);
      }),
      { numRuns: 300 },
    );
  });

  it('leaves no consumer from before the last rotation without a restart', async () => {
    await fc.assert(
      fc.asyncProperty(commands, async (sequence) => {
        const { end, rotatedAt, rotation } = await runThrough(sequence, true);
        if (rotation === '0') return;
        for (const { created, restartedAt } of end.restarts) {
          if (Date.parse(created) > Date.parse(rotatedAt)) continue;
          expect(Date.parse(restartedAt ?? '')).toBeGreaterThanOrEqual(Date.parse(rotatedAt));
        }
      }),
      { numRuns: 300 },
    );
  });

  it('rotates no more often than asked, whatever clocks jump by an hour', async () => {
    const steps = fc.array(
      fc.constantFrom<['wait' | 'jump', number]>(
        ['wait', 1],
        ['wait', 10 * 60 * second],
        ['wait', 31 * 60 * second],
        ['wait', 5 * hour],
        ['jump', hour],
        ['jump', -hour],
      ),
      { maxLength: 40 },
    );
    const rotation = fc.constantFrom<NonNullable<GeneratedSecret['rotation']>>(
      { every: '30m', overlap: '10m' },
      { schedule: '*/30 * * * *', timeZone: 'Asia/Kolkata' },
    );
    await fc.assert(
      fc.asyncProperty(steps, rotation, async (sequence, settings) => {
        const run = new Bench();
        run.credentials = [{ ...erp, rotation: { ...settings, restartConsumers: true } }];
        run.addConsumer('reader');
        await run.settle();
        // No clock is ahead by more than an hour, nor behind.
        let elapsed = 0;
        let off = 0;
        let latest = 0;
        for (const [what, by] of sequence) {
          if (what === 'wait') elapsed += by;
          else off = Math.max(-hour, Math.min(hour, off + by));
          latest = Math.max(latest, elapsed + off);
          run.now = start + elapsed + off;
          await run.settle();
        }
        const periods = Math.floor(latest / (30 * 60 * second));
        expect(run.counted.length).toBeLessThanOrEqual(periods);
        const restarts = run.client.writes.filter(({ kind }) => kind === 'Deployment');
        expect(restarts.length).toBeLessThanOrEqual(periods);
      }),
      { numRuns: 200 },
    );
  });

  it('bears any annotation, any clock, and settles', async () => {
    const times = fc.oneof(
      fc.string(),
      fc.constantFrom('', '9999-12-31T23:59:59Z', '0001-01-01T00:00:00Z', '2026-05-01T00:00:00Z'),
      fc.constant(undefined),
    );
    const names = [
      annotation.rotatedAt,
      annotation.rotation,
      annotation.previousExpiresAt,
      annotation.handledRotation,
      annotation.handledEmergency,
      annotation.ownerDigest,
      annotation.consumersRestarted,
    ];
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.constantFrom(...names), times), { maxLength: 5 }),
        fc.constantFrom(-1000 * hour, -61 * second, -30 * second, 0, hour, 50_000 * hour),
        fc.boolean(),
        async (edits, jump, isValueLost) => {
          const run = new Bench();
          run.addConsumer('reader');
          await run.settle();
          const annotations: Record<string, string> = { ...run.secret?.metadata.annotations };
          for (const [name, text] of edits) {
            if (text === undefined) delete annotations[name];
            else annotations[name] = text;
          }
          run.client.put(resources.secrets, {
            ...run.secret!,
            metadata: { ...run.secret!.metadata, annotations },
            data: isValueLost ? {} : { ...run.secret!.data, 'previous.password': 'b2xk' },
          });
          run.now += jump;
          run.nonce = 'after';
          const { problems } = await run.settle();
          expect(problems).toEqual([]);
          expect(run.value()).toBeDefined();
          expect(run.annotationOf(annotation.handledRotation)).toBe('after');
          run.now += 3 * hour;
          await run.settle();
          expect(Object.keys(run.secret?.data ?? {})).toEqual(['password']);
        },
      ),
      { numRuns: 500 },
    );
  });
});
