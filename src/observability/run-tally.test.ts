import { describe, expect, it } from 'vitest';
import { maxAutomations, RunTally } from './run-tally.ts';

const counts = { started: 0, succeeded: 0, failed: 0 };

describe('the tally of runs', () => {
  it('tells of an automation before its first run, and then what became of each', () => {
    const tally = new RunTally();
    tally.know('finance/invoice', { team: 'finance', escalation: 'pager' });
    const owner = { automation: 'finance/invoice', team: 'finance', escalation: 'pager' };
    expect([...tally.list()]).toEqual([{ ...owner, counts }]);
    for (const event of ['started', 'started', 'failed'] as const) {
      tally.add('finance/invoice', event);
    }
    expect([...tally.list()]).toEqual([{ ...owner, counts: { ...counts, started: 2, failed: 1 } }]);
  });

  it('keeps the counts when the owner changes', () => {
    const tally = new RunTally();
    tally.know('finance/invoice');
    tally.add('finance/invoice', 'started');
    tally.know('finance/invoice', { team: 'erp' });
    expect([...tally.list()]).toEqual([
      {
        automation: 'finance/invoice',
        team: 'erp',
        escalation: '',
        counts: { ...counts, started: 1 },
      },
    ]);
  });

  it('is bounded: what comes late is told together, until there is room again', () => {
    const tally = new RunTally();
    for (let index = 0; index < maxAutomations + 5; index++) tally.know(`a/${index}`);
    expect([...tally.list()]).toHaveLength(maxAutomations + 1);
    tally.add(`a/${maxAutomations + 1}`, 'started');
    tally.add('a/1', 'started');
    const started = (automation: string): number | undefined =>
      [...tally.list()].find((one) => one.automation === automation)?.counts.started;
    expect(started('other')).toBe(1);
    expect(started('a/1')).toBe(1);
    tally.forget('a/1');
    tally.know('a/1');
    expect(started('a/1')).toBe(0);
  });

  it('counts nothing of what is no automation', () => {
    const tally = new RunTally();
    tally.add('default/backup', 'started');
    expect([...tally.list()]).toEqual([]);
  });
});
