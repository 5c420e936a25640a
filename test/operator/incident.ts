import type { KillSwitch } from '../../src/api/kill-switch.ts';
import { annotation } from '../../src/api/names.ts';
import { isTrue } from '../../src/api/conditions.ts';
import { resources } from '../../src/api/resources.ts';
import type { ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import type { Answer, Api } from '../integration/admission/api.ts';
import { kubectlOk } from './cluster.ts';

export interface Automation {
  namespace: string;
  name: string;
}

/** Kills and releases, as two people do it: one engages, the other releases. */
export class Incident {
  readonly #killer: Api;
  readonly #releaser: Api;
  readonly #timeoutMs = 240_000;

  private constructor(killer: Api, releaser: Api) {
    this.#killer = killer;
    this.#releaser = releaser;
  }

  /** @param admin engages; somebody who may do no more than release releases */
  static async handledBy(controlPlane: ControlPlane, admin: Api): Promise<Incident> {
    await kubectlOk(controlPlane, [
      'create',
      'clusterrolebinding',
      'bob-releases',
      '--clusterrole=automation-guardrails-releaser',
      '--user=bob',
    ]);
    return new Incident(admin, admin.as('bob'));
  }

  /** Creates the KillSwitch. */
  async engage({ namespace, name }: Automation, reason = 'runaway'): Promise<void> {
    const killSwitch: KillSwitch = {
      metadata: { namespace, name },
      spec: { workflow: name, reason },
    };
    await succeeds(() => this.#killer.create(resources.killSwitches, killSwitch));
  }

  /** The KillSwitch once a condition of it is true. */
  async reached(automation: Automation, condition: string): Promise<KillSwitch> {
    return waitFor(
      `KillSwitch ${automation.namespace}/${automation.name} to be ${condition}`,
      async () => {
        const { status, object } = await this.#killer.get(resources.killSwitches, automation);
        if (status !== 200 || !isTrue(object.status?.conditions, condition)) return undefined;
        // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the API server's word
        return object as unknown as KillSwitch;
      },
      { timeoutMs: this.#timeoutMs, intervalMs: 250 },
    );
  }

  /** Asks for the release. */
  async askForRelease(automation: Automation): Promise<void> {
    await succeeds(() =>
      this.#releaser.annotate(resources.killSwitches, automation, {
        [annotation.release]: 'fixed',
      }),
    );
  }

  /** Waits until the KillSwitch is gone. */
  async released(automation: Automation): Promise<void> {
    await waitFor(
      `KillSwitch ${automation.namespace}/${automation.name} to be gone`,
      async () => (await this.#killer.get(resources.killSwitches, automation)).status === 404,
      { timeoutMs: this.#timeoutMs, intervalMs: 250 },
    );
  }
}

/** A request that a busy API server may turn away for a moment. */
async function succeeds(request: () => Promise<Answer>): Promise<void> {
  await waitFor(
    'the API server to accept a request',
    async () => {
      const { status, message } = await request();
      if (status >= 300) throw new Error(`${status}: ${message}`);
      return true;
    },
    { timeoutMs: 120_000 },
  );
}
