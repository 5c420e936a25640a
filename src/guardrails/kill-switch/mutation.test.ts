import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FakeApiServer } from '../../../test/fault/fake-api-server.ts';
import { killSwitchCreationPolicyName } from '../../admission/index.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import { resources } from '../../api/resources.ts';
import type { Logger } from '../../observability/logger.ts';
import { ApiServerClient, type KubeClient } from '../../runtime/client.ts';
import { Mutation } from './mutation.ts';

const { signal } = new AbortController();
let server: FakeApiServer;
let client: ApiServerClient;
let logged: string[];
let reported: boolean[];

beforeEach(async () => {
  server = await new FakeApiServer().start();
  client = new ApiServerClient({ kubeConfig: server.kubeConfig(), userAgent: 'test' });
  logged = [];
  reported = [];
});

afterEach(async () => {
  await client.close();
  await server.stop();
});

const log = (message: string): void => void logged.push(message);
const logger: Logger = { debug: log, info: log, warn: log, error: log, child: () => logger };

function mutation(over: KubeClient = client): Mutation {
  const metrics = { setAdmissionMutation: (isInForce: boolean) => void reported.push(isInForce) };
  return new Mutation({ client: over, logger, metrics, namespace: 'automation-guardrails' });
}

function refuse(text: string): void {
  server.faults.next('create', {
    kind: 'status',
    status: 403,
    message: `forbidden: ValidatingAdmissionPolicy '${killSwitchCreationPolicyName}' with binding '${killSwitchCreationPolicyName}' denied request: ${text}`,
  });
}

describe('whether admission rewrites requests', () => {
  it('is so where it stamps who engages', async () => {
    const stamping: KubeClient = Object.assign(Object.create(client) as KubeClient, {
      create: async (_: unknown, body: KillSwitch) => ({
        ...body,
        spec: { ...body.spec, engagedBy: 'operator' },
      }),
    });
    const subject = mutation(stamping);
    expect(subject.isInForce).toBeUndefined();
    expect(await subject.ask(signal)).toBe(true);
    await subject.ask(signal);
    expect(reported).toEqual([true, true]);
    expect(logged).toEqual(['Admission rewrites requests: workloads are paused by admission']);
  });

  it('is not so where it refuses for want of the stamp, or does nothing', async () => {
    refuse('engagedBy is the authenticated user: write spec.engagedBy: operator');
    const subject = mutation();
    expect(await subject.ask(signal)).toBe(false);
    expect(await subject.ask(signal)).toBe(false);
    expect(logged).toEqual(['Admission rewrites no requests: workloads are paused by patch']);
    expect(server.list(resources.killSwitches)).toEqual([]);
  });

  it('stays as it was known where the answer says nothing of it', async () => {
    const subject = mutation();
    await subject.ask(signal);
    refuse('failed to configure binding: paramKind not yet synced');
    expect(await subject.ask(signal)).toBe(false);
    server.faults.next('create', { kind: 'status', status: 500, message: 'etcd is away' });
    expect(await subject.ask(signal)).toBe(false);
    expect(reported).toEqual([false]);
  });

  it('is asked once by all who ask at the same time', async () => {
    const subject = mutation();
    await Promise.all([1, 2, 3].map(() => subject.ask(signal)));
    expect(server.requests).toHaveLength(1);
  });

  it('is asked again until the signal says so', async () => {
    const stop = new AbortController();
    const subject = mutation();
    const running = subject.run(stop.signal, 1);
    await expect.poll(() => server.requests.length).toBeGreaterThan(2);
    stop.abort();
    await running;
  });
});
