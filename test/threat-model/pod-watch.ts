import { request, type Agent } from 'undici';
import type { Pod } from '../../src/api/objects.ts';
import { resources } from '../../src/api/resources.ts';
import type { ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import type { Api } from '../integration/admission/api.ts';

/** A pod, with the code in it. */
interface WatchedPod extends Pod {
  spec?: NonNullable<Pod['spec']> & {
    containers?: { image: string }[];
    initContainers?: { image: string }[];
    ephemeralContainers?: { image: string }[];
    schedulingGates?: object[];
  };
}

/** What must not change in a pod once a fence stands. */
interface Seen {
  name: string;
  node: string;
  code: string;
}

interface Fenced {
  covers: (pod: Pod) => boolean;
  before: Map<string, Seen>;
  /** Names of pods from before the fence that may get a node all the same. */
  mayBeBound: ReadonlySet<string>;
  violations: string[];
}

/** Sees every pod of the cluster from its start, and what became of those that a fence covers. */
export class PodWatch {
  readonly #pods = new Map<string, WatchedPod>();
  readonly #fenced = new Map<string, Fenced>();
  readonly #admin: Api;
  readonly #abort = new AbortController();
  #ended: Promise<void> = Promise.resolve();
  #failure: unknown;
  #barriers = 0;
  /** Version of the last event; absent before the first. */
  #seen: string | undefined;

  private constructor(admin: Api) {
    this.#admin = admin;
  }

  static async start(controlPlane: ControlPlane, dispatcher: Agent, admin: Api): Promise<PodWatch> {
    const watch = new PodWatch(admin);
    const open = (): Promise<AsyncIterable<Buffer>> => watch.#open(controlPlane, dispatcher);
    watch.#ended = watch.#read(await open(), open);
    return watch;
  }

  /** From nothing, where the API server begins with everything that there is, or from what was seen. */
  async #open(controlPlane: ControlPlane, dispatcher: Agent): Promise<AsyncIterable<Buffer>> {
    const from = this.#seen === undefined ? '' : `&resourceVersion=${this.#seen}`;
    const url = new URL(`/api/v1/pods?watch=1${from}`, controlPlane.server);
    const { body, statusCode } = await request(url, {
      dispatcher,
      headers: { authorization: `Bearer ${controlPlane.adminToken}` },
      bodyTimeout: 0,
      signal: this.#abort.signal,
    });
    if (statusCode !== 200) throw new Error(`cannot watch pods: ${await body.text()}`);
    return body;
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#ended;
  }

  podsOf(namespace: string): WatchedPod[] {
    return [...this.#pods.values()].filter(({ metadata }) => metadata.namespace === namespace);
  }

  /** Returns when everything that happened so far has been seen. */
  async barrier(): Promise<void> {
    const name = `barrier-${this.#barriers++}`;
    const containers = [{ name: 'main', image: 'none' }];
    const marker = { metadata: { namespace: 'default', name }, spec: { containers } };
    await this.#admin.create(resources.pods, marker);
    await waitFor('the watch of pods to come up', () => {
      if (this.#failure !== undefined) throw this.#failure;
      return this.podsOf('default').some(({ metadata }) => metadata.name === name);
    });
  }

  /** From now on, nothing of what is covered may start in a namespace. */
  async fence(
    namespace: string,
    covers: (pod: Pod) => boolean,
    mayBeBound: ReadonlySet<string>,
  ): Promise<void> {
    await this.barrier();
    const before = new Map<string, Seen>();
    for (const pod of this.podsOf(namespace)) before.set(pod.metadata.uid ?? '', seen(pod));
    this.#fenced.set(namespace, { covers, before, mayBeBound, violations: [] });
  }

  /** What started in spite of the fence, one sentence each. */
  async violations(namespace: string): Promise<string[]> {
    await this.barrier();
    return this.#fenced.get(namespace)?.violations ?? ['no fence is watched'];
  }

  /** The API server ends a watch when it likes; the next one goes on where it was, or fails. */
  async #read(first: AsyncIterable<Buffer>, open: () => Promise<AsyncIterable<Buffer>>) {
    try {
      for (let body = first; !this.#abort.signal.aborted; body = await open()) {
        const decoder = new TextDecoder();
        let rest = '';
        for await (const chunk of body) {
          const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
          rest = lines.pop() ?? '';
          for (const line of lines) this.#take(JSON.parse(line) as WatchEvent);
        }
      }
    } catch (error) {
      this.#failure = error;
    }
  }

  #take({ type, object }: WatchEvent): void {
    if (type === 'ERROR') throw new Error(`the watch of pods failed: ${JSON.stringify(object)}`);
    const { uid = '', namespace = '', resourceVersion } = object.metadata;
    this.#seen = resourceVersion;
    if (type === 'DELETED') this.#pods.delete(uid);
    else this.#pods.set(uid, object);
    const fenced = this.#fenced.get(namespace);
    if (fenced === undefined || type === 'DELETED' || !fenced.covers(object)) return;
    const now = seen(object);
    const before = fenced.before.get(uid);
    fenced.before.set(uid, now);
    if (before === undefined) fenced.violations.push(`pod ${now.name} was created`);
    else if (now.code !== before.code) fenced.violations.push(`pod ${now.name} got other code`);
    else if (now.node !== before.node && !fenced.mayBeBound.has(now.name)) {
      fenced.violations.push(`pod ${now.name} got a node`);
    }
  }
}

interface WatchEvent {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'ERROR';
  object: WatchedPod;
}

function seen({ metadata, spec }: WatchedPod): Seen {
  const { containers, initContainers, ephemeralContainers, schedulingGates } = spec ?? {};
  const images = [containers, initContainers, ephemeralContainers].map((list) =>
    (list ?? []).map(({ image }) => image),
  );
  const code = JSON.stringify([...images, (schedulingGates ?? []).length]);
  return { name: metadata.name, node: spec?.nodeName ?? '', code };
}
