import type { KillSwitch } from '../../src/api/kill-switch.ts';
import { label } from '../../src/api/names.ts';
import type { KubeObject } from '../../src/api/objects.ts';
import type { ControlPlane } from '../control-plane/control-plane.ts';
import { listObjects } from './cluster.ts';
import { Recorder } from './recorder.ts';

export interface Pod extends KubeObject {
  spec: { serviceAccountName?: string; containers: { image: string }[] };
  status?: { phase?: string };
}

/** Sees every pod that is created, and tells which of them no fence should have let through. */
export class Witness {
  readonly #controlPlane: ControlPlane;
  readonly #pods: Recorder<Pod>;
  readonly #killSwitches: Recorder<KillSwitch>;
  /** Name of the Workflows. */
  readonly #name: string;

  private constructor(
    controlPlane: ControlPlane,
    pods: Recorder<Pod>,
    killSwitches: Recorder<KillSwitch>,
    name: string,
  ) {
    this.#controlPlane = controlPlane;
    this.#pods = pods;
    this.#killSwitches = killSwitches;
    this.#name = name;
  }

  /** Records from now on. Our kinds have to be installed. */
  static async of(controlPlane: ControlPlane, name = 'invoice'): Promise<Witness> {
    const pods = await Recorder.start<Pod>(controlPlane, '/api/v1/pods');
    const path = '/apis/automationguardrails.dev/v1alpha1/killswitches';
    return new Witness(controlPlane, pods, await Recorder.start(controlPlane, path), name);
  }

  async stop(): Promise<void> {
    await Promise.all([this.#pods.stop(), this.#killSwitches.stop()]);
  }

  /** Pods of the automation that run now, or were created between the fence and its release. */
  async offenders(namespace: string): Promise<string[]> {
    const pods = await listObjects<Pod>(this.#controlPlane, 'pods', namespace);
    const running = pods.filter(
      ({ spec, status }) =>
        spec.serviceAccountName === this.#name &&
        status?.phase !== 'Succeeded' &&
        status?.phase !== 'Failed',
    );
    return [
      ...running.map(({ metadata }) => `${metadata.name} runs`),
      ...this.createdWhileFenced(namespace).map((pod) => `${pod} was created`),
    ];
  }

  /**
   * Names of the pods of the automation that were created after the KillSwitch first said that its
   * fence stands, and before its release began.
   *
   * @throws Error when some may have been missed
   */
  createdWhileFenced(namespace: string): string[] {
    this.#pods.assertWhole();
    this.#killSwitches.assertWhole();
    const killSwitches = this.#killSwitches.events.filter(
      ({ object }) => object.metadata.namespace === namespace,
    );
    const from = killSwitches.find(({ object: { status } }) =>
      status?.conditions?.some(({ type, status: is }) => type === 'Fenced' && is === 'True'),
    )?.version;
    if (from === undefined) throw new Error(`no fence was seen in ${namespace}`);
    const to = killSwitches.find(
      ({ object }) => object.metadata.labels?.[label.releasing] !== undefined,
    )?.version;
    return this.#pods.events
      .filter(
        ({ type, object, version }) =>
          type === 'ADDED' &&
          object.metadata.namespace === namespace &&
          object.spec.serviceAccountName === this.#name &&
          version > from &&
          (to === undefined || version < to),
      )
      .map(({ object }) => object.metadata.name);
  }
}
