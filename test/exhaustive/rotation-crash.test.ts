import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { AutomationIdentity } from '../../src/api/automation-identity.ts';
import { isTrue } from '../../src/api/conditions.ts';
import { annotation, API_VERSION, label, secretNameOf } from '../../src/api/names.ts';
import { keyOf, type KubeObject, type Secret } from '../../src/api/objects.ts';
import { resources } from '../../src/api/resources.ts';
import { silentLogger } from '../../src/observability/logger.ts';
import { Metrics } from '../../src/observability/metrics.ts';
import { ApiServerClient } from '../../src/runtime/client.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';
import { ListWatch } from '../../src/runtime/list-watch.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { ApiProxy, type WriteFate } from '../fault/api-proxy.ts';
import { getObject, installGuardrails, kubectlOk, listObjects } from '../operator/cluster.ts';
import { startClusterVault, type ClusterVault } from '../operator/cluster-vault.ts';
import { endStateOf } from '../operator/end-state.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const namespace = 'rotation-crash';
const name = 'invoice';
const audience = 'https://runner.example.com';
const patience = { timeoutMs: 180_000, intervalMs: 100 };
const rotation = { every: '720h', overlap: '1s' };

/** Every type, each with something that a crash could break: consumers, a copy, a hook. */
const generated = [
  {
    name: 'database',
    type: 'Password',
    store: 'Vault',
    rotation: { ...rotation, restartConsumers: true },
  },
  { name: 'webhook', type: 'Token', rotation },
  {
    name: 'erp',
    type: 'BasicAuth',
    username: 'invoice',
    rotation: { ...rotation, hook: { set: 'hook-set', test: 'hook-test', maxRetries: 0 } },
  },
  { name: 'deploy', type: 'SSHKeyPair', rotation },
];
/** What each keeps its value under. */
const mainKey: Record<string, string> = {
  database: 'password',
  webhook: 'token',
  erp: 'password',
  deploy: 'ssh-privatekey',
};

let controlPlane: ControlPlane;
let proxy: ApiProxy;
let vault: ClusterVault;
let operator: OperatorProcess;
let operatorArgs: readonly string[];
let operatorKubeconfig: string;
/** The last that was killed. */
let killed: OperatorProcess | undefined;

/** Writes that are counted, and cut: not those of evidence, and not questions. */
const isOfRotation = new RegExp(
  `/namespaces/${namespace}/(secrets|jobs|deployments|serviceaccounts|automationidentities)(/|$)`,
);

/** Every version of every Secret, as a watch tells them. */
const versions = new Map<string, Secret[]>();
const latest = new Map<string, string | undefined>();
const watching = new AbortController();
let watched: Promise<void>;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  const kubeconfigPath = await installGuardrails(controlPlane);
  vault = await startClusterVault(controlPlane, [namespace]);
  operatorArgs = ['--leader-elect=false', '--evidence=false', ...vault.args];
  proxy = new ApiProxy({
    controlPlane,
    kubeconfigPath,
    onCut: () => {
      killed = operator;
      operator.kill();
    },
  });
  operatorKubeconfig = await proxy.start();
  const kubeConfig = new PooledKubeConfig().load({ kubeconfig: controlPlane.kubeconfigPath });
  const metrics = new Metrics();
  const client = new ApiServerClient({ kubeConfig, userAgent: 'rotation-crash', metrics });
  const logger = silentLogger();
  const secrets = new ListWatch<Secret>({ client, metrics, logger, resource: resources.secrets });
  secrets.onChange(({ type, object }) => {
    const seen = versions.get(keyOf(object)) ?? [];
    seen.push(type === 'deleted' ? { ...object, data: {} } : object);
    versions.set(keyOf(object), seen);
    latest.set(keyOf(object), object.metadata.resourceVersion);
  });
  watched = secrets.run(watching.signal);
  operator = await startOperator({ kubeconfigPath: operatorKubeconfig, args: operatorArgs });
  await controlPlane.apply(everything());
  await settled();
});

afterAll(async () => {
  operator?.kill();
  watching.abort();
  await watched;
  await proxy?.stop();
  await vault?.stop();
  await controlPlane?.stop();
});

function everything(): object[] {
  const owner = { team: 'finance', contact: 'a@example.com', escalation: 'b@example.com' };
  const pod = { serviceAccountName: name, terminationGracePeriodSeconds: 0 };
  const secretKeyRef = { name: secretNameOf(name, 'database'), key: 'password' };
  const container = {
    name: 'main',
    image: 'registry.example/invoice:1',
    env: [{ name: 'P', valueFrom: { secretKeyRef } }],
  };
  const labels = { app: 'consumer' };
  return [
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { [label.environment]: 'prod' } },
    },
    {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'bank-api', namespace },
      stringData: { key: 'theirs' },
    },
    ...['hook-set', 'hook-test'].map((hook) => ({
      apiVersion: 'batch/v1',
      kind: 'CronJob',
      metadata: { name: hook, namespace },
      spec: {
        schedule: '0 0 1 1 *',
        suspend: true,
        jobTemplate: {
          spec: {
            template: {
              metadata: {
                annotations: {
                  'test.automationguardrails.dev/completes': 'true',
                  'test.automationguardrails.dev/exit-code': '0',
                },
              },
              spec: {
                ...pod,
                restartPolicy: 'Never',
                containers: [{ name: 'main', image: 'registry.example/hook:1' }],
              },
            },
          },
        },
      },
    })),
    {
      apiVersion: API_VERSION,
      kind: 'AutomationIdentity',
      metadata: { name, namespace },
      spec: {
        purpose: 'posts invoices',
        owner,
        secrets: [...generated, { name: 'bank', type: 'Existing', secretName: 'bank-api' }],
        tokens: [{ name: 'ci', audience }],
      },
    },
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'consumer', namespace },
      spec: {
        selector: { matchLabels: labels },
        template: { metadata: { labels }, spec: { ...pod, containers: [container] } },
      },
    },
  ];
}

/** @param nonce that is carried out; `undefined`: the first values */
async function settled(nonce?: string): Promise<void> {
  await waitFor(
    `all to be as it has to be: ${nonce ?? 'first values'}`,
    async () => {
      const identity = await getObject<AutomationIdentity>(controlPlane, 'aid', name, namespace);
      const { metadata, status } = identity ?? {};
      const { secrets = [], tokens = [] } = status ?? {};
      const isRetired = secrets.every(({ state }) => state === undefined || state === 'Retired');
      return (
        status?.observedGeneration === metadata?.generation &&
        isTrue(status?.conditions, 'Ready') &&
        status?.lastHandledRotation === nonce &&
        secrets.length === generated.length + 1 &&
        tokens.length === 1 &&
        isRetired &&
        (await isConverged())
      );
    },
    patience,
  );
}

/** What status doesn't say: the copy is the value, and one pod of the consumer is left. */
async function isConverged(): Promise<boolean> {
  const { data = {}, metadata } = await secretOf('database');
  const { annotations = {} } = metadata;
  const copies = readable();
  const pods = await listObjects<KubeObject & { status?: { phase?: string } }>(
    controlPlane,
    'pods',
    namespace,
  );
  const consumers = pods.filter((pod) => pod.metadata.labels?.['app'] === 'consumer');
  const restarted = annotations[annotation.consumersRestarted];
  return (
    copies.length === 1 &&
    copies[0] === Buffer.from(data['password'] ?? '', 'base64').toString() &&
    consumers.length === 1 &&
    consumers[0]?.status?.phase === 'Running' &&
    (restarted === annotations[annotation.rotation] || annotations[annotation.rotation] === '0')
  );
}

function readable(): unknown[] {
  const path = `automation-guardrails/${namespace}/${name}/database`;
  return [...vault.vault.readable('secret', path).values()].map(({ password }) => password);
}

async function secretOf(credential: string): Promise<Secret> {
  const secretName = secretNameOf(name, credential);
  const found = await getObject<Secret>(controlPlane, 'secret', secretName, namespace);
  if (found === undefined) throw new Error(`no Secret ${secretName}`);
  return found;
}

/** Without what counts, or names, the rotations so far. */
async function endState(): Promise<unknown> {
  const state = await endStateOf(controlPlane, namespace);
  const kept = Object.entries(state).filter(([key]) => !/^(Job\/|pods$)/.test(key));
  const text = JSON.stringify(Object.fromEntries(kept))
    .replaceAll(/nonce-\d+/g, 'NONCE')
    .replaceAll(/(guardrails\.dev\/(?:rotation|consumers-restarted)":")\d+/g, '$1N');
  return JSON.parse(text) as unknown;
}

async function revived(): Promise<void> {
  if (killed !== operator) return;
  await operator.exited;
  operator = await startOperator({ kubeconfigPath: operatorKubeconfig, args: operatorArgs });
}

interface Counts {
  /** Of each Secret: its UID, and how often it was rotated. */
  secrets: Record<string, { uid: string | undefined; rotation: number }>;
  /** Changes of the consumer's spec. */
  restarts: number;
  jobs: number;
}

/** What stands, once the watch has told all of it. */
async function counts(): Promise<Counts> {
  const secrets: Counts['secrets'] = {};
  for (const credential of Object.keys(mainKey)) {
    const metadata = await waitFor(
      'the watch',
      async () => {
        const { metadata: live } = await secretOf(credential);
        return latest.get(keyOf({ metadata: live })) === live.resourceVersion && live;
      },
      patience,
    );
    const number = Number(metadata.annotations?.[annotation.rotation] ?? 0);
    secrets[credential] = { uid: metadata.uid, rotation: number };
  }
  const consumer = await getObject<KubeObject>(controlPlane, 'deployment', 'consumer', namespace);
  const jobs = await listObjects(controlPlane, 'jobs', namespace);
  return { secrets, restarts: consumer?.metadata.generation ?? 0, jobs: jobs.length };
}

/** To be rotated revokes a token: its Secret is another one then. */
async function publishedToken(): Promise<string> {
  return Buffer.from((await secretOf('ci')).data?.['token'] ?? '', 'base64').toString();
}

/** Tokens that were published before. */
const revoked = new Set<string>();

let rotations = 0;

/**
 * Rotates everything, with the operator killed after a write, and the next one before its first.
 *
 * @param at number of the write, status not counted; 0: nothing is killed
 * @returns how many writes there were, and what is wrong with how it went
 */
async function rotate(at: number): Promise<{ writes: number; what: string[] }> {
  const nonce = `nonce-${++rotations}`;
  const before = await counts();
  const token = await publishedToken();
  versions.clear();
  let writes = 0;
  let kills = 0;
  proxy.onWrite = ({ path }): WriteFate => {
    if (!isOfRotation.test(path)) return 'pass';
    if (!path.endsWith('/status')) writes++;
    // The operator that was killed has its last words.
    if (killed === operator) return 'pass';
    if (kills === 1) {
      kills = 2;
      return 'cut-before';
    }
    if (kills === 0 && writes === at && !path.endsWith('/status')) {
      kills = 1;
      return 'cut-after';
    }
    return 'pass';
  };
  await kubectlOk(controlPlane, [
    'annotate',
    '--overwrite',
    'aid',
    name,
    `-n=${namespace}`,
    `${annotation.rotate}=${nonce}`,
  ]);
  const done = settled(nonce);
  for (let deaths = 0; deaths < 2; deaths++) {
    await Promise.race([done, operator.exited]);
    await revived();
  }
  await done;
  proxy.onWrite = () => 'pass';
  await revived();
  const after = await counts();
  const what = Object.keys(mainKey).flatMap((credential) => problemsOf(credential, before, after));
  revoked.add(token);
  if (revoked.has(await publishedToken())) what.push('a revoked token is published');
  if (after.restarts !== before.restarts + 1) {
    what.push(`the consumer was restarted ${after.restarts - before.restarts} times`);
  }
  if (after.jobs !== before.jobs + 2) what.push(`${after.jobs - before.jobs} Jobs of the hook ran`);
  if (versions.has(`${namespace}/bank-api`)) what.push("somebody else's Secret was written");
  return { writes, what };
}

/** That each version had a valid value, and the one before as long as the new one was young. */
function problemsOf(credential: string, before: Counts, after: Counts): string[] {
  const problems: string[] = [];
  const key = mainKey[credential] ?? '';
  const seen = versions.get(`${namespace}/${secretNameOf(name, credential)}`) ?? [];
  const values = [...new Set(seen.map(({ data = {} }) => data[key]))];
  const say = (what: string): void => void problems.push(`${credential}: ${what}`);
  if (values.includes(undefined)) say('was without a value');
  const [was, is] = [before.secrets[credential], after.secrets[credential]];
  if (is?.uid !== was?.uid) say('was deleted and made anew');
  if (is?.rotation !== (was?.rotation ?? 0) + 1) {
    say(`was rotated from ${was?.rotation} to ${is?.rotation}`);
  }
  const published = seen.findIndex(({ data = {} }) => data[`previous.${key}`] !== undefined);
  if (published === -1) say('never had the value before beside the new one');
  return problems;
}

it('SIGKILL after each write of a rotation of all types, and before the next one, leaves a valid version at every moment, and the same end', async () => {
  const { writes, what } = await rotate(0);
  expect(what).toEqual([]);
  const reference = await endState();
  console.log(`writes of a rotation of everything: ${writes}`);
  expect(writes).toBeGreaterThan(15);
  const wrong: string[] = [];
  for (let at = 1; at <= writes; at++) {
    const outcome = await rotate(at);
    wrong.push(...outcome.what.map((problem) => `write ${at}: ${problem}`));
    const isTheSame = async (): Promise<boolean> => isDeepStrictEqual(await endState(), reference);
    // What differs is said by who compares.
    await waitFor('the same end', isTheSame, patience).catch(() => undefined);
    expect(await endState(), `write ${at}`).toEqual(reference);
    console.log(`write ${at} of ${writes}: ${outcome.what.join(', ') || 'done'}`);
  }
  expect(wrong).toEqual([]);
  const isTaken = async (token: string): Promise<boolean> =>
    (await vault.review(token, audience)) !== undefined;
  expect(await isTaken(await publishedToken())).toBe(true);
  // An API server remembers for some seconds what it was asked before.
  await waitFor(
    'every revoked token to be refused',
    async () => {
      for (const token of revoked) if (await isTaken(token)) return false;
      return true;
    },
    patience,
  );
});
