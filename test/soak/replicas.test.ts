import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { resources } from '../../src/api/resources.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { ApiProxy, type Cut } from '../fault/api-proxy.ts';
import { Api } from '../integration/admission/api.ts';
import { automation, automationPods } from '../operator/automation.ts';
import { installGuardrails, listObjects, waitForCondition } from '../operator/cluster.ts';
import { endStateOf } from '../operator/end-state.ts';
import { Incident } from '../operator/incident.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

let controlPlane: ControlPlane;
let operatorKubeconfig: string;
let admin: Api;
let incident: Incident;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  operatorKubeconfig = await installGuardrails(controlPlane);
  admin = Api.asAdmin(controlPlane);
  incident = await Incident.handledBy(controlPlane, admin);
});

afterAll(async () => {
  await admin?.close();
  await controlPlane?.stop();
});

/** One replica, with its own way to the API server. */
class Replica {
  readonly #proxy: ApiProxy;
  #kubeconfigPath = '';
  #operator: OperatorProcess | undefined;
  #isCut = false;

  constructor() {
    this.#proxy = new ApiProxy({
      controlPlane,
      kubeconfigPath: operatorKubeconfig,
      onCut: () => {
        this.#isCut = true;
        this.#operator?.kill();
      },
    });
  }

  get writes(): number {
    return this.#proxy.writes.length;
  }

  async start(): Promise<void> {
    this.#kubeconfigPath ||= await this.#proxy.start();
    this.#operator = await startOperator({ kubeconfigPath: this.#kubeconfigPath });
  }

  /** SIGKILL at one of its next writes. */
  dieAt(write: number, fate: Cut): void {
    const at = this.writes + write;
    this.#proxy.onWrite = ({ index }) => (index === at ? fate : 'pass');
  }

  /** Starts it again, if it died. */
  async revive(): Promise<boolean> {
    this.#proxy.onWrite = () => 'pass';
    if (!this.#isCut) return false;
    this.#isCut = false;
    await this.#operator?.exited;
    await this.start();
    return true;
  }

  async stop(): Promise<void> {
    await this.#operator?.stop();
    await this.#proxy.stop();
  }
}

async function podsRun(namespace: string): Promise<void> {
  await waitFor(
    'all pods to run',
    async () => {
      const pods = await listObjects<{
        status?: { phase?: string };
        metadata: { deletionTimestamp?: string };
      }>(controlPlane, 'pods', namespace);
      return (
        pods.length === automationPods &&
        pods.every(
          ({ status, metadata }) =>
            status?.phase === 'Running' && metadata.deletionTimestamp === undefined,
        )
      );
    },
    { timeoutMs: 120_000, intervalMs: 250 },
  );
}

/** What stands once nothing changes any more; a loop of writes never gets there. */
async function quiet(namespace: string, replicas: readonly Replica[]): Promise<object> {
  const writes = (): number => replicas.reduce((sum, one) => sum + one.writes, 0);
  let seen = { writes: -1, state: {} as object };
  return waitFor(
    'an end of all writes',
    async () => {
      const now = { writes: writes(), state: await endStateOf(controlPlane, namespace) };
      if (isDeepStrictEqual(now, seen)) return now.state;
      seen = now;
      return undefined;
    },
    // Longer than a retry of a kill waits: whoever is about to write again does so in between.
    { timeoutMs: 180_000, intervalMs: 6_000 },
  );
}

interface Story {
  afterKill: object;
  afterRelease: object;
  deaths: number;
  writes: number[];
}

/** @param dies at which write of the kill, and of the release, the first replica dies; 0: never */
async function story(
  namespace: string,
  replicas: readonly Replica[],
  dies: number,
  fate: Cut,
): Promise<Story> {
  const invoice = { namespace, name: 'invoice' };
  const [first] = replicas;
  await controlPlane.apply(automation({ namespace }));
  await waitForCondition(controlPlane, { kind: 'awf', ...invoice }, 'Ready');
  await podsRun(namespace);
  await quiet(namespace, replicas);
  const before = replicas.map(({ writes }) => writes);
  let deaths = 0;

  if (dies > 0) first?.dieAt(dies, fate);
  await incident.engage(invoice);
  await incident.reached(invoice, 'Ready');
  await waitForCondition(controlPlane, { kind: 'awf', ...invoice }, 'Stopped');
  if ((await first?.revive()) === true) deaths++;
  const afterKill = await quiet(namespace, replicas);

  if (dies > 0) first?.dieAt(dies, fate);
  await incident.askForRelease(invoice);
  await incident.released(invoice);
  if ((await first?.revive()) === true) deaths++;
  await waitForCondition(controlPlane, { kind: 'awf', ...invoice }, 'Ready');
  await podsRun(namespace);
  const afterRelease = await quiet(namespace, replicas);
  const writes = replicas.map((one, index) => one.writes - (before[index] ?? 0));
  await admin.delete(resources.namespaces, { name: namespace });
  return { afterKill, afterRelease, deaths, writes };
}

describe('two replicas at once, one of which dies', () => {
  it('end where one alone ends, and write no more than they need', async () => {
    const alone = new Replica();
    await alone.start();
    const reference = await story('replicas-reference', [alone], 0, 'cut-before');
    await alone.stop();
    console.log(`one replica: ${reference.writes.join()} writes`);

    const pair = [new Replica(), new Replica()];
    await Promise.all(pair.map((replica) => replica.start()));
    try {
      const cases = [
        { dies: 0, fate: 'cut-before' },
        { dies: 1, fate: 'cut-after' },
        { dies: 3, fate: 'cut-before' },
        { dies: 6, fate: 'cut-after' },
      ] as const;
      let deaths = 0;
      for (const { dies, fate } of cases) {
        const outcome = await story(`replicas-${dies}`, pair, dies, fate);
        console.log(
          `dies at ${dies}, ${fate}: ${outcome.deaths} deaths, ${outcome.writes.join(' + ')} writes`,
        );
        deaths += outcome.deaths;
        expect(outcome.afterKill, `kill, dies at ${dies}`).toEqual(reference.afterKill);
        expect(outcome.afterRelease, `release, dies at ${dies}`).toEqual(reference.afterRelease);
        const most = 3 * (reference.writes[0] ?? 0);
        expect(Math.max(...outcome.writes), `writes, dies at ${dies}`).toBeLessThanOrEqual(most);
      }
      expect(deaths).toBeGreaterThanOrEqual(3);
    } finally {
      await Promise.all(pair.map((replica) => replica.stop()));
    }
  });
});
