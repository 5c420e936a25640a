import { describe, expect, it } from 'vitest';
import { resources } from '../api/resources.ts';
import { pendingRecords, type ChainState, type Observation } from './observation.ts';
import { admissionFacts, toldFact, versionFact } from './operator-facts.ts';

async function told(state: ChainState, observation: Observation | undefined): Promise<string[]> {
  const observations = observation === undefined ? [] : [observation];
  const records = await pendingRecords(state, observations, new Map(), 0);
  return records.map(({ draft }) => draft.action);
}

describe('the version that leads', () => {
  it('is told when another one takes its place, and not when the same starts again', async () => {
    const state: ChainState = new Map();
    expect(await told(state, versionFact('1.0.0'))).toEqual(['OperatorInstalled']);
    expect(await told(state, versionFact('1.0.0'))).toEqual([]);
    const [upgraded] = await pendingRecords(state, [versionFact('1.1.0')], new Map(), 0);
    expect(upgraded?.draft).toMatchObject({
      action: 'OperatorUpgraded',
      details: { version: '1.1.0', from: '1.0.0' },
    });
  });
});

describe('admission policies', () => {
  const policy = (
    name: string,
    failurePolicy: string,
  ): { metadata: { name: string }; spec: object } => ({
    metadata: { name },
    spec: { failurePolicy },
  });
  const facts = (isComplete: boolean, ...all: ReturnType<typeof policy>[]): Observation =>
    admissionFacts(resources.validatingPolicies, all, isComplete);

  it('are told when they are installed, changed and removed', async () => {
    const state: ChainState = new Map();
    const fence = policy('fence', 'Fail');
    expect(await told(state, facts(true, fence))).toEqual(['PolicyInstalled']);
    expect(await told(state, facts(true, fence))).toEqual([]);
    const [changed] = await pendingRecords(
      state,
      [facts(true, policy('fence', 'Ignore'))],
      new Map(),
      0,
    );
    expect(changed?.draft).toMatchObject({ action: 'PolicyChanged', details: { name: 'fence' } });
    expect(changed?.before).not.toBe(changed?.after);
    expect(await told(state, facts(true))).toEqual(['PolicyRemoved']);
  });

  it('are not taken for removed while not all of them are known', async () => {
    const state: ChainState = new Map();
    await told(state, facts(true, policy('fence', 'Fail')));
    expect(await told(state, facts(false))).toEqual([]);
  });
});

describe('what a controller tells', () => {
  it('is recorded where no object keeps it, by its name in the log', async () => {
    const about = {
      kind: 'Workflow',
      metadata: { name: 'invoice', namespace: 'finance', uid: 'u' },
    };
    const message = 'Two pods of what is approved may start.';
    expect(await told(new Map(), toldFact({ about, reason: 'PodsStarted', message }, 0))).toEqual([
      'GateLifted',
    ]);
    expect(toldFact({ about, reason: 'Whatever', message }, 0)).toBeUndefined();
  });
});
