import { createInterface } from 'node:readline';
import { Agent, request } from 'undici';
import type { KubeObject } from '../../src/api/objects.ts';
import type { ControlPlane } from '../control-plane/control-plane.ts';

/** What the API server told about one object. */
export interface Recorded<T extends KubeObject> {
  type: 'ADDED' | 'MODIFIED' | 'DELETED';
  object: T;
  /** Orders everything that was written to the cluster. */
  version: bigint;
}

/** Records every event of one kind, in all namespaces, from the moment of its start. */
export class Recorder<T extends KubeObject> {
  readonly events: Recorded<T>[] = [];
  readonly #agent: Agent;
  readonly #ended: Promise<void>;
  #isStopping = false;
  #failure: unknown;

  private constructor(agent: Agent, lines: AsyncIterable<string>) {
    this.#agent = agent;
    this.#ended = this.#record(lines).catch((error: unknown) => {
      if (!this.#isStopping) this.#failure = error;
    });
  }

  /** @param path of the list, as in `/api/v1/pods` */
  static async start<T extends KubeObject>(
    controlPlane: ControlPlane,
    path: string,
  ): Promise<Recorder<T>> {
    const dispatcher = new Agent({
      connect: { ca: controlPlane.certificateAuthority },
      bodyTimeout: 0,
    });
    const headers = { authorization: `Bearer ${controlPlane.adminToken}` };
    const url = `${controlPlane.server}${path}`;
    const list = await request(`${url}?limit=1`, { dispatcher, headers });
    const { metadata } = (await list.body.json()) as { metadata: { resourceVersion: string } };
    const query = `watch=true&timeoutSeconds=3600&resourceVersion=${metadata.resourceVersion}`;
    const { body } = await request(`${url}?${query}`, { dispatcher, headers });
    return new Recorder(dispatcher, createInterface({ input: body }));
  }

  /** @throws Error when something may have been missed */
  assertWhole(): void {
    if (this.#failure !== undefined)
      throw new Error('events were missed', { cause: this.#failure });
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#agent.destroy();
    await this.#ended;
  }

  async #record(lines: AsyncIterable<string>): Promise<void> {
    for await (const line of lines) {
      const { type, object } = JSON.parse(line) as { type: string; object: T };
      if (type !== 'ADDED' && type !== 'MODIFIED' && type !== 'DELETED') throw new Error(line);
      const version = BigInt(object.metadata.resourceVersion ?? '0');
      this.events.push({ type, object, version });
    }
    throw new Error('the watch ended');
  }
}
