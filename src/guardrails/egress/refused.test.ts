import { describe, expect, it } from 'vitest';
import { silentLogger } from '../../observability/logger.ts';
import { RefusedConnections, refusedQuery, unusualFinding } from './refused.ts';

const signal = new AbortController().signal;

function vector(...series: [namespace: string, workload: string, value: string][]): object {
  const result = series.map(([source_namespace, source_workload, value]) => ({
    metric: { source_namespace, source_workload },
    value: [1, value],
  }));
  return { status: 'success', data: { resultType: 'vector', result } };
}

async function asked(answer: (expression: string) => unknown): Promise<RefusedConnections> {
  const refused = new RefusedConnections({
    query: async (expression) => answer(expression),
    logger: silentLogger(),
  });
  await refused.ask(signal);
  return refused;
}

describe('what was refused', () => {
  it('is the sum over the workloads of an automation, and of no others', async () => {
    const refused = await asked(() =>
      vector(
        ['billing', 'web', '3'],
        ['billing', 'worker', '4.5'],
        ['other', 'web', '100'],
        ['billing', 'broken', 'NaN'],
      ),
    );
    expect(refused.of('billing', ['web', 'worker', 'web', 'broken'])).toBe(7.5);
    expect(refused.of('billing', [])).toBe(0);
  });

  it('is nothing where others are counted, and unknown where nobody is', async () => {
    const none = await asked((expression) =>
      expression === refusedQuery ? vector() : vector(['', '', '12']),
    );
    expect(none.of('billing', ['web'])).toBe(0);
    const unlabelled = await asked(() => vector());
    expect(unlabelled.of('billing', ['web'])).toBe(undefined);
  });

  it.each([
    ['no vector', { status: 'success', data: { resultType: 'scalar', result: [1, '2'] } }],
    ['an error', { status: 'error', error: 'too many' }],
    ['nonsense', 'pong'],
  ])('is unknown where the answer is %s', async (_, body) => {
    expect((await asked(() => body)).of('billing', ['web'])).toBe(undefined);
  });

  it('is unknown as soon as there is no answer', async () => {
    let isUp = true;
    const refused = new RefusedConnections({
      query: async () => {
        if (!isUp) throw new Error('refused');
        return vector(['billing', 'web', '1']);
      },
      logger: silentLogger(),
    });
    expect(refused.of('billing', ['web'])).toBe(undefined);
    await refused.ask(signal);
    expect(refused.of('billing', ['web'])).toBe(1);
    isUp = false;
    let told = 0;
    refused.onChange(() => (told += 1));
    await refused.ask(signal);
    expect(refused.of('billing', ['web'])).toBe(undefined);
    expect(told).toBe(1);
  });
});

describe('the condition', () => {
  it.each<[number | undefined, string, string]>([
    [undefined, 'Unknown', 'Nobody counts'],
    [0, 'False', 'no packet'],
    [0.2, 'False', 'no packet'],
    [1.02, 'True', 'at least 1 packet refused'],
    [4, 'True', 'at least 2 packets'],
    [7, 'True', 'at least 5 packets'],
    [99, 'True', 'at least 50 packets'],
    [12_345, 'True', 'at least 10000 packets'],
  ])('of %s packets is %s', (packets, status, words) => {
    const finding = unusualFinding(packets);
    expect(finding.status).toBe(status);
    expect(finding.message).toContain(words);
  });
});
