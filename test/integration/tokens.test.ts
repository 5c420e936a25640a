import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type {
  AutomationIdentity,
  OutsideToken,
  TokenStatus,
} from '../../src/api/automation-identity.ts';
import { conditionOf } from '../../src/api/conditions.ts';
import type { KillSwitch } from '../../src/api/kill-switch.ts';
import { annotation, API_VERSION, label, MANAGED_BY, secretNameOf } from '../../src/api/names.ts';
import type { KubeObject, Secret, TokenReview } from '../../src/api/objects.ts';
import { resources, type Resource } from '../../src/api/resources.ts';
import type { Workflow } from '../../src/api/workflow.ts';
import { isAccepted, RevokedTokens } from '../../src/guardrails/credentials/revoked-tokens.ts';
import { readClaims, tokenOf } from '../../src/guardrails/credentials/token.ts';
import { TokenKeeper, type TokensOutcome } from '../../src/guardrails/credentials/token-keeper.ts';
import { applyIdentity } from '../../src/guardrails/identity/apply.ts';
import { childMetadata, planIdentity } from '../../src/guardrails/identity/plan.ts';
import { silentLogger } from '../../src/observability/logger.ts';
import { Applier } from '../../src/runtime/applier.ts';
import {
  ApiServerClient,
  type DeleteOptions,
  type KubeClient,
  type ObjectKey,
  type WriteOptions,
} from '../../src/runtime/client.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import {
  getObject,
  installGuardrails,
  kubectlOk,
  listObjects,
  waitForCondition,
} from '../operator/cluster.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const name = 'poster';
const vault = 'https://vault.example.com';
const minute = 60_000;
const { signal } = new AbortController();

let controlPlane: ControlPlane;
let kubeconfigPath: string;
/** With the rights of the operator. */
let client: ApiServerClient;
/** With all rights. */
let admin: ApiServerClient;
const kubeConfigs: PooledKubeConfig[] = [];

function connect(kubeconfig: string): ApiServerClient {
  const kubeConfig = new PooledKubeConfig().load({ kubeconfig });
  kubeConfigs.push(kubeConfig);
  return new ApiServerClient({ kubeConfig, userAgent: 'tokens-test' });
}

beforeAll(async () => {
  controlPlane = await startControlPlane();
  kubeconfigPath = await installGuardrails(controlPlane);
  client = connect(kubeconfigPath);
  admin = connect(controlPlane.kubeconfigPath);
});

afterAll(async () => {
  await Promise.all(kubeConfigs.map((kubeConfig) => kubeConfig.closeConnections()));
  await controlPlane?.stop();
});

const accepts = (token: string, ...audiences: string[]): Promise<boolean> =>
  isAccepted(admin, token, audiences, signal);

/**
 * Tokens that were revoked. An API server remembers for 10 s that one was good, so they are looked
 * at together, at the end.
 */
const revoked: string[] = [];

async function declare(namespace: string, spec: object): Promise<void> {
  await controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { [label.environment]: 'prod' } },
    },
    {
      apiVersion: API_VERSION,
      kind: 'AutomationIdentity',
      metadata: { name, namespace },
      spec: {
        purpose: 'posts invoices',
        owner: { team: 'finance', contact: 'a@example.com', escalation: 'b@example.com' },
        ...spec,
      },
    },
  ]);
}

async function secretOf(namespace: string, token = 'ci'): Promise<Secret | undefined> {
  return admin.get(resources.secrets, { namespace, name: secretNameOf(name, token) });
}

async function tokenIn(namespace: string, token = 'ci'): Promise<string> {
  const secret = await secretOf(namespace, token);
  return secret === undefined ? '' : tokenOf(secret);
}

/** The keeper by itself, on an identity that stands, with a clock of its own. */
class Bench {
  aheadMs = 0;
  tokens: OutsideToken[] = [{ name: 'ci', audience: vault }];
  nonce: string | undefined;
  readonly #identity: AutomationIdentity;
  #status: TokenStatus[] = [];
  #keeper: TokenKeeper;

  private constructor(identity: AutomationIdentity) {
    this.#identity = identity;
    this.#keeper = this.#keeperOn(client);
  }

  static async open(namespace: string): Promise<Bench> {
    await declare(namespace, {});
    const identity = await client.get(resources.automationIdentities, { namespace, name });
    if (identity === undefined) throw new Error('no identity');
    const plan = planIdentity(identity, {}, {}, { withheld: false, grantable: [] });
    await applyIdentity(plan, {}, { applier: new Applier({ client }), signal });
    return new Bench(identity);
  }

  /** One look. @param through how it reaches the API server; another one is a new process */
  async keep(through?: KubeClient): Promise<TokensOutcome> {
    if (through !== undefined) this.#keeper = this.#keeperOn(through);
    const { metadata } = this.#identity;
    const outcome = await this.#keeper.keep({
      identity: {
        ...this.#identity,
        metadata: {
          ...metadata,
          ...(this.nonce !== undefined && { annotations: { [annotation.rotate]: this.nonce } }),
        },
        status: { tokens: this.#status },
      },
      tokens: this.tokens,
      childMetadata: (child) => childMetadata(this.#identity, child),
      isWithheld: false,
      notify: () => undefined,
      signal,
      log: silentLogger(),
    });
    this.#status = outcome.tokens;
    return outcome;
  }

  #keeperOn(through: KubeClient): TokenKeeper {
    const clock = (): number => Date.now() + this.aheadMs;
    return new TokenKeeper({
      client: through,
      countIssue: () => undefined,
      clock,
      revoked: new RevokedTokens({ clock }),
    });
  }
}

class Crash extends Error {}

/** Ends at a write like a process that is killed: before it is sent, or before it is answered. */
class CutOff implements KubeClient {
  isCut = false;
  readonly #at: number;
  readonly #isSent: boolean;
  #writes = 0;

  constructor(at: number, isSent: boolean) {
    this.#at = at;
    this.#isSent = isSent;
  }

  get<T extends KubeObject>(resource: Resource<T>, key: ObjectKey): Promise<T | undefined> {
    return this.isCut ? Promise.reject(new Crash()) : client.get(resource, key);
  }

  create<T extends KubeObject>(resource: Resource<T>, body: T, options?: WriteOptions): Promise<T> {
    return this.#write(() => client.create(resource, body, options));
  }

  mergePatch<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    patch: object,
  ): Promise<T> {
    return this.#write(() => client.mergePatch(resource, key, patch));
  }

  delete(resource: Resource, key: ObjectKey, options?: DeleteOptions): Promise<boolean> {
    return this.#write(() => client.delete(resource, key, options));
  }

  list = (): Promise<never> => Promise.reject(new Error('not needed'));
  apply = this.list;
  jsonPatch = this.list;

  async #write<R>(send: () => Promise<R>): Promise<R> {
    if (this.isCut) throw new Crash();
    this.isCut = ++this.#writes === this.#at;
    if (this.isCut && !this.#isSent) throw new Crash();
    const answer = await send();
    if (this.isCut) throw new Crash();
    return answer;
  }
}

describe('a token for readers outside of pods', () => {
  const namespace = 'minted';
  let bench: Bench;
  let first: string;

  beforeAll(async () => {
    bench = await Bench.open(namespace);
  });

  it('is bound to its Secret, and good for its audience alone', async () => {
    await bench.keep();
    const { tokens, problems } = await bench.keep();
    expect(problems).toEqual([]);
    const secret = await secretOf(namespace);
    first = tokenOf(secret!);
    const claims = readClaims(first);
    expect(claims).toMatchObject({ audiences: [vault], secretUid: secret?.metadata.uid });
    expect(await accepts(first, vault)).toBe(true);
    // Asked without its audience, a token that is as good as ever reads as dead.
    expect(await accepts(first)).toBe(false);
    expect(await accepts(first, 'https://other.example.com')).toBe(false);
    const { issuedAt = 0, expiresAt = 0 } = claims ?? {};
    expect(expiresAt - issuedAt).toBe(60 * minute);
    const [status] = tokens;
    expect(Date.parse(status?.expirationTime ?? '')).toBe(expiresAt);
    expect(Date.parse(status?.renewTime ?? '')).toBe(issuedAt + 48 * minute);
  });

  it('is left alone until it is due, then renewed, and stays good beside its successor', async () => {
    const before = await secretOf(namespace);
    bench.aheadMs = 47 * minute;
    await bench.keep();
    expect(await secretOf(namespace)).toEqual(before);
    bench.aheadMs = 49 * minute;
    await bench.keep();
    const second = await tokenIn(namespace);
    expect(second).not.toBe(first);
    expect((await secretOf(namespace))?.metadata.uid).toBe(before?.metadata.uid);
    expect(await accepts(first, vault)).toBe(true);
    expect(await accepts(second, vault)).toBe(true);
  });

  it('dies by nonce, with all that was ever published in its place', async () => {
    const second = await tokenIn(namespace);
    bench.nonce = 'incident-7';
    await bench.keep();
    const third = await tokenIn(namespace);
    revoked.push(first, second);
    expect(await accepts(third, vault)).toBe(true);
    await bench.keep();
    expect(await tokenIn(namespace)).toBe(third);
  });

  it('is none that the API server accepts itself, unless that is allowed', async () => {
    const { spec } = controlPlaneReview();
    const review = (await admin.create(resources.tokenReviews, {
      metadata: { name: '' },
      spec,
    })) as TokenReview & { status: { audiences: string[] } };
    const [audience = ''] = review.status.audiences;
    bench.tokens = [...bench.tokens, { name: 'kubernetes', audience }];
    await bench.keep();
    const { problems } = await bench.keep();
    expect(problems).toMatchObject([{ reason: 'AudienceNotAllowed' }]);
    expect(await tokenIn(namespace, 'kubernetes')).toBe('');

    bench.tokens = bench.tokens.with(1, { name: 'kubernetes', audience, allowKubernetesAPI: true });
    expect((await bench.keep()).problems).toEqual([]);
    expect(await accepts(await tokenIn(namespace, 'kubernetes'))).toBe(true);
  });

  /** The operator's own token, which is one for the API server. */
  function controlPlaneReview(): { spec: TokenReview['spec'] } {
    const user = new PooledKubeConfig().load({ kubeconfig: kubeconfigPath }).getCurrentUser();
    return { spec: { token: user?.token ?? '' } };
  }

  it('never touches a Secret that somebody else made', async () => {
    const metadata = { namespace, name: secretNameOf(name, 'foreign') };
    const foreign = await admin.create(resources.secrets, { metadata });
    const token = { name: 'foreign', audience: vault };
    bench.tokens = [...bench.tokens, token];
    bench.nonce = 'incident-8';
    const { problems } = await bench.keep();
    expect(problems).toMatchObject([{ reason: 'ForeignObject' }]);
    bench.tokens = bench.tokens.filter((one) => one !== token);
    await bench.keep();
    expect(await secretOf(namespace, 'foreign')).toEqual(foreign);
  });
});

describe('work that is cut off', () => {
  const namespace = 'cut';
  let bench: Bench;

  beforeAll(async () => {
    bench = await Bench.open(namespace);
    await bench.keep();
    await bench.keep();
  });

  it.each([
    ['a renewal', () => (bench.aheadMs += 49 * minute), 2],
    [
      'a revocation',
      async () => {
        revoked.push(await tokenIn(namespace));
        bench.nonce = `${bench.nonce ?? ''}x`;
      },
      4,
    ],
  ])('before and after each write of %s ends with one good token', async (_, begin, writes) => {
    let cuts = 0;
    for (let at = 1; at <= writes + 3; at++) {
      for (const isSent of [false, true]) {
        const before = await tokenIn(namespace);
        await begin();
        const cut = new CutOff(at, isSent);
        await bench.keep(cut).catch((error: unknown) => {
          if (!(error instanceof Crash)) throw error;
          cuts++;
        });
        expect((await bench.keep(client)).problems).toEqual([]);
        const after = await tokenIn(namespace);
        expect(after).not.toBe(before);
        expect(await accepts(after, vault)).toBe(true);
      }
    }
    // TokenReviews count as writes here, and there are more or fewer of them.
    expect(cuts).toBeGreaterThanOrEqual(2 * writes);
    const secrets = await listObjects<KubeObject>(controlPlane, 'secrets', namespace);
    expect(secrets.map(({ metadata }) => metadata.name)).toEqual([secretNameOf(name, 'ci')]);
  });
});

describe('the operator', () => {
  const namespace = 'operated';
  const killed = { name, namespace: 'killed' };
  let operator: OperatorProcess;

  beforeAll(async () => {
    operator = await startOperator({ kubeconfigPath });
    for (const each of [namespace, killed.namespace]) {
      await declare(each, { tokens: [{ name: 'ci', audience: vault, expirationSeconds: 900 }] });
    }
    for (const each of [namespace, killed.namespace]) {
      await waitForCondition(controlPlane, { kind: 'aid', name, namespace: each }, 'Ready');
    }
  });

  afterAll(async () => {
    await operator?.stop();
  });

  const statusOf = async (): Promise<TokenStatus | undefined> =>
    (await getObject<AutomationIdentity>(controlPlane, 'aid', name, namespace))?.status
      ?.tokens?.[0];

  it('says in status when the token really expires', async () => {
    const { expiresAt = 0 } = readClaims(await tokenIn(namespace)) ?? {};
    const status = await statusOf();
    expect(Date.parse(status?.expirationTime ?? '')).toBe(expiresAt);
    expect(status).toMatchObject({ secretName: secretNameOf(name, 'ci'), audience: vault });
    const metrics = await (await fetch(operator.metricsUrl())).text();
    expect(metrics).toContain('automation_guardrails_token_issues_total{result="success"}');
    const [, seconds] = /soonest_token_expiry_seconds (\d+)/.exec(metrics) ?? [];
    expect(Number(seconds)).toBeLessThanOrEqual(900);
  });

  it('revokes by annotation', async () => {
    const before = await tokenIn(namespace);
    expect(await accepts(before, vault)).toBe(true);
    await kubectlOk(controlPlane, [
      'annotate',
      'aid',
      name,
      `-n=${namespace}`,
      `${annotation.rotate}=incident-7`,
    ]);
    await waitFor('another token', async () => {
      const after = await tokenIn(namespace);
      return after !== '' && after !== before && (await accepts(after, vault));
    });
    revoked.push(before);
  });

  it('revokes by kill, proves it, and mints another one at the release', async () => {
    const before = await tokenIn(killed.namespace);
    expect(await accepts(before, vault)).toBe(true);
    await admin.create(resources.killSwitches, {
      metadata: killed,
      spec: { workflow: name, reason: 'runaway' },
    });
    await waitForCondition(controlPlane, { kind: 'ksw', ...killed }, 'TokensRevoked');
    expect(await accepts(before, vault)).toBe(false);
    expect(await secretOf(killed.namespace)).toBeUndefined();
    const { expiresAt = 0 } = readClaims(before) ?? {};
    const killSwitch = await getObject<KillSwitch>(controlPlane, 'ksw', name, killed.namespace);
    expect(killSwitch?.status?.remaining).toEqual([
      {
        what: `Token ci for ${vault}, where its signature alone is checked`,
        until: new Date(expiresAt).toISOString().replace('.000Z', 'Z'),
      },
    ]);
    await waitForCondition(controlPlane, { kind: 'ksw', ...killed }, 'Effective');

    await kubectlOk(
      controlPlane,
      ['annotate', 'ksw', name, `-n=${killed.namespace}`, `${annotation.release}=fixed`],
      { as: 'bob', asGroups: ['system:masters'] },
    );
    await waitForCondition(controlPlane, { kind: 'aid', ...killed }, 'Ready');
    const after = await waitFor('another token', () => tokenIn(killed.namespace));
    expect(await accepts(after, vault)).toBe(true);
    expect(await accepts(before, vault)).toBe(false);
  });

  it('says no token anywhere', async () => {
    const token = await tokenIn(namespace);
    const kinds = 'aid,ksw,events,serviceaccounts,roles,rolebindings';
    const objects = JSON.stringify(await listObjects(controlPlane, kinds, namespace));
    const everywhere = [...operator.logs, objects].join('\n');
    for (const part of token.split('.').slice(1)) expect(everywhere).not.toContain(part);
  });

  it('leaves nothing that works of an identity that is deleted', async () => {
    const token = await tokenIn(killed.namespace);
    expect(await accepts(token, vault)).toBe(true);
    await controlPlane.apply([
      {
        apiVersion: API_VERSION,
        kind: 'Workflow',
        metadata: killed,
        spec: {
          owner: { team: 'finance', contact: 'a@example.com', escalation: 'b@example.com' },
          targets: [{ group: 'apps', kind: 'Deployment', name }],
        },
      },
    ]);
    await kubectlOk(controlPlane, ['delete', 'aid', name, `-n=${killed.namespace}`]);
    await waitFor('the operator to say that it has taken all away', async () => {
      const events = await listObjects<{ reason: string }>(
        controlPlane,
        'events',
        killed.namespace,
      );
      return events.some(({ reason }) => reason === 'Offboarded');
    });
    await waitFor('its Workflow to be held', async () => {
      const workflow = await getObject<Workflow>(controlPlane, 'awf', name, killed.namespace);
      const held = conditionOf(workflow?.status?.conditions, 'Held');
      return held?.status === 'True' && held.message.includes('AutomationIdentity');
    });
    const ours = `${label.managedBy}=${MANAGED_BY}`;
    await waitFor(
      'everything to be gone',
      async () => {
        const kinds = 'serviceaccounts,roles,rolebindings,secrets';
        const text = await kubectlOk(controlPlane, [
          'get',
          kinds,
          `-n=${killed.namespace}`,
          `-l=${ours}`,
          '-o=name',
        ]);
        return text === '';
      },
      // The garbage collector learns of new kinds every 30 seconds only.
      { timeoutMs: 100_000 },
    );
    revoked.push(token);
  });

  it('tells of a revocation when the API server says that it is done', async () => {
    await waitFor('the event', async () => {
      const events = await listObjects<{ reason: string }>(controlPlane, 'events', namespace);
      return events.some(({ reason }) => reason === 'TokenRevoked');
    });
  });
});

describe('a token that was revoked', () => {
  it('is dead to who asks with its audience, each of them', async () => {
    expect(revoked.length).toBeGreaterThan(10);
    await waitFor('all to be dead', async () => {
      const answers = await Promise.all(revoked.map((token) => accepts(token, vault)));
      return !answers.includes(true);
    });
  });
});
