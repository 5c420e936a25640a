import { createReadStream } from 'node:fs';
import { policyName } from '../../src/admission/policies.ts';

/**
 * Kinds whose controllers make pods by themselves, and the users as whom these controllers ask the
 * API server.
 */
const makers = {
  ReplicaSet: 'replicaset-controller',
  ReplicationController: 'replication-controller',
  StatefulSet: 'statefulset-controller',
  DaemonSet: 'daemon-set-controller',
  Job: 'job-controller',
} as const;

export type PodMaker = keyof typeof makers;

export const podMakers: readonly PodMaker[] = [
  'ReplicaSet',
  'ReplicationController',
  'StatefulSet',
  'DaemonSet',
  'Job',
];

/** The part of an audit event (audit.k8s.io/v1, level Metadata) that is read here. */
interface AuditEvent {
  verb: string;
  user: { username: string };
  objectRef?: { namespace?: string; resource?: string; subresource?: string };
  responseStatus?: { code?: number; message?: string };
}

/**
 * What the controllers asked for, and were told, from the API server's own record. Their events tell
 * less: they are aggregated and, after a burst, dropped.
 */
export class Refusals {
  readonly #auditLogPath: string;
  /** What the API server said last, by namespace and user. */
  readonly #last = new Map<string, string>();
  /** Who was refused by a fence, by namespace and user. */
  readonly #fenced = new Set<string>();
  /** Bytes of the log that have been read. */
  #read = 0;
  #reading: Promise<void> = Promise.resolve();

  constructor(auditLogPath: string) {
    this.#auditLogPath = auditLogPath;
  }

  /** Kinds whose controllers tried to make a pod in a namespace, and were refused by a fence. */
  async fencedMakers(namespace: string): Promise<Set<PodMaker>> {
    await this.#catchUp();
    return new Set(podMakers.filter((kind) => this.#fenced.has(keyOf(namespace, kind))));
  }

  /** What the controller of a kind was told last about a pod that it wanted to make. */
  lastAnswer(namespace: string, kind: PodMaker): string {
    return this.#last.get(keyOf(namespace, kind)) ?? 'it never asked';
  }

  /** Several ask at a time, and each byte is read once. */
  #catchUp(): Promise<void> {
    this.#reading = this.#reading.then(() => this.#readOn());
    return this.#reading;
  }

  async #readOn(): Promise<void> {
    const stream = createReadStream(this.#auditLogPath, { start: this.#read });
    let rest = Buffer.alloc(0);
    for await (const chunk of stream) {
      const bytes = Buffer.concat([rest, chunk as Buffer]);
      const end = bytes.lastIndexOf('\n') + 1;
      for (const line of bytes.toString('utf8', 0, end).split('\n')) this.#take(line);
      this.#read += end;
      rest = bytes.subarray(end);
    }
  }

  #take(line: string): void {
    if (!line.includes('"resource":"pods"') || !line.includes('-controller"')) return;
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written by the API server
    const { verb, user, objectRef, responseStatus } = JSON.parse(line) as AuditEvent;
    if (verb !== 'create' || objectRef?.subresource !== undefined) return;
    const { code, message = '' } = responseStatus ?? {};
    const key = `${objectRef?.namespace} ${user.username}`;
    this.#last.set(key, `${code} ${message}`);
    if (code === 403 && isFence.test(message)) this.#fenced.add(key);
  }
}

/** A fence refused by its own rule, and not for want of an evaluation. */
const isFence = new RegExp(
  `ValidatingAdmissionPolicy '(${policyName('fence-pods')}[a-z-]*)' with binding '\\1' denied request: kill switch: `,
);

function keyOf(namespace: string, kind: PodMaker): string {
  return `${namespace} system:serviceaccount:kube-system:${makers[kind]}`;
}
