import * as fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import type {
  AutomationIdentity,
  AutomationIdentityStatus,
  OutsideToken,
} from '../../api/automation-identity.ts';
import { annotation, API_VERSION } from '../../api/names.ts';
import type { ObjectMeta, Secret } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { Logger } from '../../observability/logger.ts';
import { ApiError } from '../../runtime/errors.ts';
import type { Notice } from './keeper.ts';
import { IssuingClient } from './issuing-client.testing.ts';
import { RevokedTokens } from './revoked-tokens.ts';
import { readClaims, tokenOf } from './token.ts';
import { TokenKeeper, withdrawnTokens, type TokensOutcome } from './token-keeper.ts';
import { withdrawSecrets } from './withdraw.ts';

const second = 1000;
const minute = 60_000;
const start = Date.parse('2026-05-01T00:00:00Z');
const namespace = 'billing';
const vault = 'https://vault.example.com';
const kubernetes = 'https://kubernetes.default.svc';
const ci: OutsideToken = { name: 'ci', audience: vault, expirationSeconds: 1000 };
const secretKey = { namespace, name: 'aid.poster.ci' };
const accountKey = { namespace, name: 'poster' };

/** One identity, its keeper, and everything that they may say. */
class Bench {
  now = start;
  /** That this machine's clock is ahead of the API server's. */
  aheadMs = 0;
  tokens: OutsideToken[] = [ci];
  isWithheld = false;
  nonce: string | undefined;
  emergency: string | undefined;
  owner: AutomationIdentity['spec']['owner'];
  status: AutomationIdentityStatus = {};
  readonly client = new IssuingClient(() => this.now);
  readonly notices: Notice[] = [];
  readonly said: string[] = [];
  readonly counted: string[] = [];
  #revoked = this.#ledger();
  #keeper = this.#newKeeper();

  constructor() {
    this.makeAccount();
  }

  makeAccount(): void {
    this.client.remove(resources.serviceAccounts, accountKey);
    this.client.put(resources.serviceAccounts, { metadata: this.#childMetadata('poster') });
  }

  get identity(): AutomationIdentity {
    return {
      metadata: {
        ...accountKey,
        uid: 'uid-of-poster',
        annotations: {
          ...(this.nonce !== undefined && { [annotation.rotate]: this.nonce }),
          ...(this.emergency !== undefined && { [annotation.rotateEmergency]: this.emergency }),
        },
      },
      spec: { tokens: this.tokens, ...(this.owner !== undefined && { owner: this.owner }) },
      status: this.status,
    };
  }

  get secret(): Secret | undefined {
    return this.client.find(resources.secrets, secretKey);
  }

  get token(): string {
    return this.secret === undefined ? '' : tokenOf(this.secret);
  }

  /** Whether a reader that asks for its audience is told that the published token is good. */
  isGood(audience = vault): boolean {
    return this.client.accepts(this.token, [audience]);
  }

  restart(): void {
    this.#revoked = this.#ledger();
    this.#keeper = this.#newKeeper();
  }

  /** One look, whose outcome goes to status. */
  async keep(): Promise<TokensOutcome> {
    const { identity, isWithheld, tokens } = this;
    const outcome = await this.#keeper.keep({
      identity,
      tokens,
      childMetadata: (name) => this.#childMetadata(name),
      isWithheld,
      notify: (notice) => this.notices.push(notice),
      signal: new AbortController().signal,
      log: this.#log(),
    });
    return this.#report(outcome);
  }

  /** Looks until there is nothing more to write at this time. */
  async settle(): Promise<TokensOutcome> {
    for (let looks = 0; looks < 10; looks++) {
      const [writes, status] = [this.client.writes.length, JSON.stringify(this.status)];
      const outcome = await this.keep();
      if (writes === this.client.writes.length && status === JSON.stringify(this.status)) {
        return outcome;
      }
    }
    throw new Error('does not settle');
  }

  /** As a kill does. */
  async withdraw(): Promise<void> {
    const { signal } = new AbortController();
    const { client } = this;
    await withdrawSecrets(this.identity, ['aid.poster.ci'], {
      client,
      revoked: this.#revoked,
      signal,
    });
    this.#report(withdrawnTokens(this.status.tokens));
  }

  reasons(): string[] {
    return this.notices.splice(0).map(({ reason }) => reason);
  }

  #report(outcome: TokensOutcome): TokensOutcome {
    this.said.push(JSON.stringify(outcome));
    this.status = {
      ...this.status,
      tokens: outcome.tokens,
      ...(this.nonce !== undefined &&
        outcome.isHandled.rotate && { lastHandledRotation: this.nonce }),
    };
    return outcome;
  }

  #childMetadata(name: string): ObjectMeta {
    const owner = { apiVersion: API_VERSION, kind: 'AutomationIdentity', name: 'poster' };
    return {
      name,
      namespace,
      ownerReferences: [{ ...owner, uid: 'uid-of-poster', controller: true }],
    };
  }

  #ledger(): RevokedTokens {
    return new RevokedTokens({ clock: () => this.now + this.aheadMs });
  }

  #newKeeper(): TokenKeeper {
    return new TokenKeeper({
      client: this.client,
      countIssue: (result) => this.counted.push(result),
      clock: () => this.now + this.aheadMs,
      revoked: this.#revoked,
    });
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

describe('TokenKeeper', () => {
  it('puts the name into status before it creates the Secret, then publishes a bound token', async () => {
    const { problems, tokens } = await bench.keep();
    expect(problems.map(({ reason }) => reason)).toEqual(['Provisioning']);
    expect(tokens).toEqual([{ name: 'ci', secretName: 'aid.poster.ci', audience: vault }]);
    expect(bench.client.writes).toEqual([]);

    const settled = await bench.settle();
    expect(settled.problems).toEqual([]);
    expect(settled.dueAt).toBe(start + 800 * second);
    expect(settled.soonestExpiry).toBe(start + 1000 * second);
    expect(bench.isGood()).toBe(true);
    expect(readClaims(bench.token)?.secretUid).toBe(bench.secret?.metadata.uid);
    expect(bench.status.tokens).toEqual([
      {
        name: 'ci',
        secretName: 'aid.poster.ci',
        audience: vault,
        issuedAt: '2026-05-01T00:00:00Z',
        expirationTime: '2026-05-01T00:16:40Z',
        renewTime: '2026-05-01T00:13:20Z',
      },
    ]);
    const text = (key: string): string =>
      Buffer.from(bench.secret?.data?.[key] ?? '', 'base64').toString();
    expect(text('audience')).toBe(vault);
    expect(text('expirationTimestamp')).toBe('2026-05-01T00:16:40Z');
    expect(bench.reasons()).toEqual(['TokenIssued']);
    expect(bench.counted).toEqual(['success']);
  });

  it('asks for an hour where the spec doesn’t say', async () => {
    bench.tokens = [{ name: 'ci', audience: vault }];
    expect((await bench.settle()).soonestExpiry).toBe(start + 60 * minute);
  });

  it('renews at 80 % of the life, and leaves the one before valid', async () => {
    await bench.settle();
    const first = bench.token;
    const uid = bench.secret?.metadata.uid;
    bench.now += 800 * second - 1;
    await bench.settle();
    expect(bench.token).toBe(first);
    bench.now += 1;
    await bench.settle();
    expect(bench.token).not.toBe(first);
    expect(bench.secret?.metadata.uid).toBe(uid);
    expect(bench.client.accepts(first, [vault])).toBe(true);
    expect(bench.isGood()).toBe(true);
    expect(bench.reasons()).toEqual(['TokenIssued']);
  });

  it.each([600, 5000])('goes by the life that the API server gives: %i s', async (lifeSeconds) => {
    bench.client.lifeSeconds = lifeSeconds;
    const { dueAt, soonestExpiry } = await bench.settle();
    expect(soonestExpiry).toBe(start + lifeSeconds * second);
    expect(dueAt).toBe(start + lifeSeconds * 800);
  });

  it('revokes by nonce at once, all that was ever published, and mints anew', async () => {
    await bench.settle();
    const published = [bench.token];
    bench.now += 800 * second;
    await bench.settle();
    published.push(bench.token);
    bench.nonce = 'incident-7';
    await bench.settle();
    for (const token of published) expect(bench.client.accepts(token, [vault])).toBe(false);
    expect(bench.isGood()).toBe(true);
    expect(bench.status.lastHandledRotation).toBe('incident-7');
    expect(bench.reasons()).toEqual(['TokenIssued', 'TokenIssued', 'TokenRevoked']);

    const { token } = bench;
    bench.nonce = undefined;
    await bench.settle();
    bench.nonce = 'incident-7';
    await bench.settle();
    expect(bench.token).toBe(token);
  });

  it('revokes for an emergency and for another owner, each once', async () => {
    bench.owner = { team: 'finance', contact: 'a@example.com' };
    await bench.settle();
    const first = bench.token;
    bench.emergency = 'leak-1';
    await bench.settle();
    const other = bench.token;
    expect(bench.client.accepts(first, [vault])).toBe(false);
    bench.owner = { ...bench.owner, contact: 'b@example.com' };
    await bench.settle();
    expect(bench.client.accepts(other, [vault])).toBe(false);
    expect(bench.isGood()).toBe(true);

    const { token } = bench;
    bench.owner = { ...bench.owner, escalation: 'c@example.com' };
    bench.emergency = undefined;
    await bench.settle();
    expect(bench.token).toBe(token);
  });

  it('says that tokens are revoked only once the API server says so', async () => {
    await bench.settle();
    bench.client.remembered.add(bench.token);
    bench.nonce = 'x';
    const { dueAt, problems } = await bench.settle();
    expect(dueAt).toBe(bench.now + 2 * second);
    expect(problems).toEqual([]);
    expect(bench.reasons()).not.toContain('TokenRevoked');

    bench.now += 31 * second;
    expect((await bench.keep()).problems).toMatchObject([
      { reason: 'TokenStillAccepted', message: expect.stringContaining('aid.poster.ci') },
    ]);
    bench.client.remembered.clear();
    expect((await bench.keep()).problems).toEqual([]);
    expect(bench.reasons()).toEqual(['TokenRevoked']);
  });

  it('revokes what is for an audience that is no longer asked for', async () => {
    await bench.settle();
    const first = bench.token;
    bench.tokens = [{ ...ci, audience: 'https://other.example.com' }];
    await bench.settle();
    expect(bench.client.accepts(first, [vault])).toBe(false);
    expect(bench.isGood('https://other.example.com')).toBe(true);
  });

  it('revokes what left the spec', async () => {
    await bench.settle();
    const first = bench.token;
    bench.tokens = [];
    await bench.settle();
    expect(bench.secret).toBeUndefined();
    expect(bench.client.accepts(first, [vault])).toBe(false);
    expect(bench.status.tokens).toEqual([]);
    expect(bench.reasons()).toEqual(['TokenIssued', 'TokenRevoked']);
  });

  it('mints nothing new while withheld, renews what stands, and revokes all the same', async () => {
    bench.isWithheld = true;
    await bench.settle();
    expect(bench.client.writes).toEqual([]);
    bench.isWithheld = false;
    await bench.settle();
    bench.isWithheld = true;
    bench.now += 800 * second;
    await bench.settle();
    expect(bench.client.issued).toHaveLength(2);
    bench.nonce = 'x';
    await bench.settle();
    expect(bench.secret).toBeUndefined();
    bench.isWithheld = false;
    await bench.settle();
    expect(bench.isGood()).toBe(true);
  });

  it('comes back from a kill with another token, and tells until then when the old one expires', async () => {
    await bench.settle();
    const first = bench.token;
    await bench.withdraw();
    expect(bench.client.accepts(first, [vault])).toBe(false);
    expect(bench.status.tokens).toEqual([
      {
        name: 'ci',
        secretName: 'aid.poster.ci',
        audience: vault,
        issuedAt: '2026-05-01T00:00:00Z',
        expirationTime: '2026-05-01T00:16:40Z',
      },
    ]);
    await bench.settle();
    expect(bench.isGood()).toBe(true);
    expect(bench.token).not.toBe(first);
  });

  it('revokes also while the API server reviews no token', async () => {
    await bench.settle();
    const first = bench.token;
    bench.restart();
    bench.client.isReviewing = false;
    bench.nonce = 'incident-7';
    await expect(bench.keep()).rejects.toMatchObject({ status: 503 });
    expect(bench.client.accepts(first, [vault])).toBe(false);
    bench.client.isReviewing = true;
    await bench.settle();
    expect(bench.isGood()).toBe(true);
  });

  it('waits for the ServiceAccount without asking again and again', async () => {
    await bench.settle();
    bench.client.remove(resources.serviceAccounts, accountKey);
    bench.now += 900 * second;
    expect(await bench.settle()).toMatchObject({ dueAt: undefined, problems: [] });
    bench.makeAccount();
    await bench.settle();
    expect(bench.isGood()).toBe(true);
  });

  it('waits for the ServiceAccount, and mints none for somebody else’s', async () => {
    bench.client.remove(resources.serviceAccounts, accountKey);
    await bench.settle();
    expect(bench.secret).toBeUndefined();
    bench.client.put(resources.serviceAccounts, { metadata: accountKey });
    await bench.settle();
    expect(bench.client.issued).toEqual([]);
  });

  it('mints anew where the ServiceAccount was made anew, or the Secret is a copy', async () => {
    await bench.settle();
    bench.makeAccount();
    await bench.settle();
    expect(bench.isGood()).toBe(true);
    const { metadata, ...copy } = bench.secret!;
    bench.client.remove(resources.secrets, secretKey);
    const { ownerReferences = [] } = metadata;
    bench.client.put(resources.secrets, { metadata: { ...secretKey, ownerReferences }, ...copy });
    expect(bench.isGood()).toBe(false);
    await bench.settle();
    expect(bench.isGood()).toBe(true);
  });

  it('never touches a Secret that somebody else made, whatever happens', async () => {
    const foreign = bench.client.put(resources.secrets, {
      metadata: secretKey,
      data: { token: 'dGhlaXJz' },
    });
    bench.nonce = 'x';
    const { problems } = await bench.settle();
    expect(problems).toMatchObject([{ reason: 'ForeignObject' }]);
    bench.tokens = [];
    await bench.settle();
    expect(bench.secret).toEqual(foreign);
    expect(bench.client.writes).toEqual([]);
  });

  it('leaves the Secret of a generated credential that had the name, until it is gone', async () => {
    bench.status = { secrets: [{ name: 'ci', secretName: 'aid.poster.ci' }] };
    const { problems, dueAt } = await bench.keep();
    expect(problems.map(({ reason }) => reason)).toEqual(['Provisioning']);
    expect(dueAt).toBe(bench.now);
    await bench.keep();
    expect(bench.client.writes).toEqual([]);
  });

  it('publishes no token that the API server accepts itself, and doesn’t go on asking', async () => {
    bench.tokens = [{ ...ci, audience: kubernetes }];
    const { problems, dueAt } = await bench.settle();
    expect(problems).toMatchObject([{ reason: 'AudienceNotAllowed' }]);
    expect(problems[0]?.message).toContain('allowKubernetesAPI: true');
    expect(dueAt).toBe(bench.now + 10 * minute);
    expect(bench.token).toBe('');
    const { length } = bench.client.issued;
    bench.now += minute;
    await bench.settle();
    expect(bench.client.issued).toHaveLength(length);

    bench.tokens = [{ ...ci, audience: kubernetes, allowKubernetesAPI: true }];
    expect((await bench.settle()).problems).toEqual([]);
    expect(bench.isGood(kubernetes)).toBe(true);
  });

  it('revokes what was allowed for the API server and no longer is, also after a restart', async () => {
    bench.tokens = [{ ...ci, audience: kubernetes, allowKubernetesAPI: true }];
    await bench.settle();
    const first = bench.token;
    bench.restart();
    bench.tokens = [{ ...ci, audience: kubernetes }];
    const { problems } = await bench.settle();
    expect(problems).toMatchObject([{ reason: 'AudienceNotAllowed' }]);
    expect(bench.client.accepts(first, [kubernetes])).toBe(false);
  });

  it('does not take the audience of a dead token for harmless', async () => {
    bench.tokens = [{ ...ci, audience: kubernetes, allowKubernetesAPI: true }];
    await bench.settle();
    bench.restart();
    bench.now += 2000 * second;
    bench.tokens = [{ ...ci, audience: kubernetes }];
    await bench.settle();
    expect(bench.isGood(kubernetes)).toBe(false);
  });

  it.each([
    { status: 403, reason: 'Forbidden' },
    { status: 422, reason: 'Invalid' },
  ])('reports a token that is refused ($status), and tries again', async (refusal) => {
    bench.client.beforeWrite = ({ kind }) => {
      if (kind === 'TokenRequest') throw new ApiError('no verb issue-tokens', refusal);
    };
    await bench.keep();
    const { problems, dueAt } = await bench.keep();
    expect(problems).toMatchObject([{ reason: 'TokenNotIssued' }]);
    expect(problems[0]?.message).toContain('no verb issue-tokens');
    expect(dueAt).toBe(bench.now + minute);
    expect(bench.counted).toEqual(['error']);
    bench.client.beforeWrite = () => undefined;
    expect((await bench.settle()).problems).toEqual([]);
  });

  it('says nothing of the answer where a token can’t be published', async () => {
    bench.client.beforeWrite = ({ verb }) => {
      if (verb === 'patch') throw new ApiError('denied: token=canary', { status: 403 });
    };
    await bench.keep();
    expect((await bench.keep()).problems).toMatchObject([{ reason: 'TokenNotIssued' }]);
    bench.client.beforeWrite = ({ verb }) => {
      if (verb === 'patch') throw new ApiError('timeout: token=canary', { status: 500 });
    };
    const error: unknown = await bench.keep().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ status: 500 });
    expect(textOf(error) + bench.said.join('')).not.toContain('canary');
  });

  it('publishes nothing over a version that it didn’t see', async () => {
    await bench.settle();
    bench.now += 800 * second;
    bench.client.beforeWrite = ({ verb }) => {
      if (verb !== 'patch') return;
      bench.client.beforeWrite = () => undefined;
      bench.client.put(resources.secrets, { ...bench.secret!, data: { token: 'b3RoZXI=' } });
    };
    await expect(bench.keep()).rejects.toMatchObject({ status: 409 });
    expect(bench.token).toBe('other');
    await bench.settle();
    expect(bench.isGood()).toBe(true);
  });

  it.each([-60 * minute, 60 * minute, -5 * minute])(
    'keeps the token good where the clock is wrong by %i ms, without a storm',
    async (aheadMs) => {
      bench.aheadMs = aheadMs;
      await bench.settle();
      bench.restart();
      for (let steps = 0; steps < 40; steps++) {
        const { dueAt = 0 } = await bench.settle();
        expect(bench.isGood()).toBe(true);
        const waitMs = Math.max(0, dueAt - bench.now - bench.aheadMs);
        bench.now += Math.min(waitMs, 100 * second);
      }
      const elapsed = (bench.now - start) / (800 * second);
      // One more for the restart, after which the clock has to be compared again.
      expect(bench.client.issued.length).toBeLessThanOrEqual(elapsed + 3);
    },
  );

  it('says no token anywhere', async () => {
    for (let round = 0; round < 5; round++) {
      bench.nonce = String(round);
      await bench.settle();
      bench.now += 800 * second;
      await bench.settle();
    }
    expect(bench.client.issued.length).toBeGreaterThan(8);
    const said = [...bench.said, JSON.stringify([bench.notices, bench.status])].join();
    for (const token of bench.client.issued) {
      for (const part of token.split('.').slice(1)) expect(said).not.toContain(part);
    }
  });
});

type Command =
  | { op: 'wait'; seconds: number }
  | { op: 'rotate' }
  | { op: 'hold' }
  | { op: 'audience' }
  | { op: 'remove' }
  | { op: 'replaceAccount' }
  | { op: 'kill' }
  /** Work that is cut off around its n-th write, or before status is written. */
  | { op: 'keep'; cut: { write: number; after: boolean } | 'status' };

const plain = (['rotate', 'hold', 'audience', 'remove', 'replaceAccount', 'kill'] as const).map(
  (op) => fc.record({ op: fc.constant(op) }),
);
const commands = fc.array(
  fc.oneof(
    fc.record({
      op: fc.constant('wait' as const),
      seconds: fc.constantFrom(1, 61, 799, 800, 1000, 4000),
    }),
    ...plain,
    fc.record({
      op: fc.constant('keep' as const),
      cut: fc.oneof(
        fc.record({ write: fc.integer({ min: 1, max: 4 }), after: fc.boolean() }),
        fc.constant('status' as const),
      ),
    }),
  ),
  { maxLength: 25 },
);

class Crash extends Error {}

/** Runs the commands; with `cuts`, work is cut off where they say, and then taken up again. */
async function runThrough(sequence: readonly Command[], cuts: boolean): Promise<Bench> {
  const run = new Bench();
  let [nonces, audiences] = [0, 0];
  /** Comes back as it went: with the first audience again, nothing would be to revoke. */
  let entry = ci;
  /** Tokens that were there when all had to be revoked. */
  let condemned: string[] = [];
  const settle = async (): Promise<void> => {
    await run.settle();
    if (run.tokens.length === 0) condemned = [...run.client.issued];
    const audience = run.tokens[0]?.audience ?? '';
    for (const token of condemned) expect(run.client.accepts(token, [vault, audience])).toBe(false);
    if (run.secret === undefined) expect(run.isWithheld || run.tokens.length === 0).toBe(true);
    else if (!run.isWithheld) expect(run.isGood(audience)).toBe(true);
  };
  for (const command of sequence) {
    switch (command.op) {
      case 'wait':
        run.now += command.seconds * second;
        break;
      case 'rotate':
        run.nonce = `nonce-${++nonces}`;
        condemned = [...run.client.issued];
        break;
      case 'hold':
        run.isWithheld = !run.isWithheld;
        break;
      case 'audience':
        entry = { ...ci, audience: `${vault}/${++audiences}` };
        run.tokens = [entry];
        condemned = [...run.client.issued];
        break;
      case 'remove':
        run.tokens = run.tokens.length === 0 ? [entry] : [];
        break;
      case 'replaceAccount':
        run.makeAccount();
        break;
      case 'kill':
        condemned = [...run.client.issued];
        await run.withdraw();
        break;
      case 'keep':
        if (cuts) await cutOff(run, command.cut);
        await settle();
    }
  }
  await settle();
  return run;
}

async function cutOff(
  run: Bench,
  cut: { write: number; after: boolean } | 'status',
): Promise<void> {
  const { status, client } = run;
  if (cut === 'status') {
    await run.keep();
    run.status = status;
  } else {
    let writes = 0;
    client.beforeWrite = () => {
      if (++writes === cut.write && !cut.after) throw new Crash();
    };
    client.afterWrite = () => {
      if (writes === cut.write && cut.after) throw new Crash();
    };
    await run.keep().catch(() => undefined);
    client.beforeWrite = () => undefined;
    client.afterWrite = () => undefined;
  }
  run.restart();
}

describe('TokenKeeper, cut off at any point', () => {
  it('ends with one good token, all revoked ones dead, as work that isn’t cut off', async () => {
    await fc.assert(
      fc.asyncProperty(commands, async (sequence) => {
        const undisturbed = await runThrough(sequence, false);
        const cut = await runThrough(sequence, true);
        expect(cut.status).toEqual(undisturbed.status);
        const keysOf = ({ secret }: Bench): string[] => Object.keys(secret?.data ?? {}).toSorted();
        expect(keysOf(cut)).toEqual(keysOf(undisturbed));
        expect(cut.secret?.metadata.annotations).toEqual(undisturbed.secret?.metadata.annotations);
      }),
      { numRuns: 300 },
    );
  });

  it('bears any content of its Secret, any clock, and settles with a good token', async () => {
    const payload = fc.record({
      aud: fc.oneof(fc.constant(vault), fc.constant([vault]), fc.constant([]), fc.jsonValue()),
      iat: fc.oneof(fc.constantFrom(0, start / second, 1e15, -1), fc.jsonValue()),
      exp: fc.oneof(fc.constantFrom(0, start / second + 1000, 1e15), fc.jsonValue()),
    });
    const texts = fc.oneof(
      fc.string(),
      payload.map((one) => `e.${Buffer.from(JSON.stringify(one)).toString('base64url')}.s`),
    );
    const jumps = fc.constantFrom(-1000 * minute, -30 * second, 0, 60 * minute);
    await fc.assert(
      fc.asyncProperty(texts, jumps, async (text, aheadMs) => {
        const run = new Bench();
        await run.settle();
        run.client.put(resources.secrets, {
          ...run.secret!,
          data: { token: Buffer.from(text).toString('base64') },
        });
        run.aheadMs = aheadMs;
        run.restart();
        expect((await run.settle()).problems).toEqual([]);
        expect(run.isGood()).toBe(true);
      }),
      { numRuns: 300 },
    );
  });
});
