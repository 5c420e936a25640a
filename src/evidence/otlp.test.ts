import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { waitFor } from '../../test/control-plane/wait.ts';
import { startOtlpReceiver, type OtlpReceiver } from '../../test/evidence/otlp-receiver.ts';
import { silentLogger } from '../observability/logger.ts';
import { OtlpForwarder } from './otlp.ts';
import { link, noHash, type Entry } from './record.ts';

let receiver: OtlpReceiver;
let forwarded: number;
let dropped: number;

beforeEach(async () => {
  forwarded = 0;
  dropped = 0;
  receiver = await startOtlpReceiver();
});

afterEach(() => receiver.stop());

function forwarder(options: { maxPending?: number; timeoutMs?: number } = {}): OtlpForwarder {
  return new OtlpForwarder({
    endpoint: receiver.endpoint,
    logger: silentLogger(),
    metrics: {
      countForwarded: (count) => (forwarded += count),
      countNotForwarded: (count) => (dropped += count),
    },
    version: '1.2.3',
    instance: 'one',
    namespace: 'guardrails',
    timeoutMs: 300,
    ...options,
  });
}

function entries(count: number): Entry[] {
  const all: Entry[] = [];
  for (let turn = 1; turn <= count; turn++) {
    const end = all.at(-1) ?? { sequence: 0, hash: noHash };
    all.push(
      link(end, {
        chain: 'finance/invoice',
        time: '2026-01-02T03:04:05.678Z',
        action: 'KillEngaged',
        outcome: 'Succeeded',
        actor: { name: 'alice', basis: 'authenticated' },
        incident: 'abcd1234',
      }),
    );
  }
  return all;
}

describe('records over OTLP', () => {
  it('are the texts that were hashed, each once, in their order', async () => {
    const sent = entries(600);
    const log = forwarder({ timeoutMs: 20_000 });
    await log.open();
    log.forward(sent);
    await waitFor('all to be sent', () => Promise.resolve(forwarded === 600));
    await log.close();
    const { received } = receiver;
    expect(received.map(({ body }) => body.stringValue)).toEqual(sent.map(({ record }) => record));
    expect([forwarded, dropped]).toEqual([600, 0]);
    const [first] = received;
    const attributes = Object.fromEntries(
      first?.attributes.map(({ key, value }) => [key, value.stringValue]) ?? [],
    );
    expect(attributes).toMatchObject({
      'evidence.hash': sent[0]?.hash,
      'evidence.chain': 'finance/invoice',
      'evidence.action': 'KillEngaged',
      'evidence.actor': 'alice',
      'evidence.incident': 'abcd1234',
    });
    expect(first?.timeUnixNano).toBe(`${Date.UTC(2026, 0, 2, 3, 4, 5, 678)}000000`);
  });

  it.each([
    ['refuses', 400],
    ['is down', 503],
    ['answers nothing', undefined],
  ])('are dropped and counted where the receiver %s, and nothing waits', async (_, says) => {
    receiver.answer(says);
    const log = forwarder({ maxPending: 100 });
    await log.open();
    log.forward(entries(250));
    expect(dropped).toBe(150);
    await waitFor('the rest to be given up', () => Promise.resolve(dropped === 250));
    await log.close();
    expect(forwarded).toBe(0);
  });

  it('are counted as dropped before anything is open', () => {
    forwarder().forward(entries(3));
    expect(dropped).toBe(3);
  });
});
