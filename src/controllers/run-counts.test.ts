import { describe, expect, it } from 'vitest';
import { projectWorkload } from '../api/workload.ts';
import type { Workload } from '../api/workload.ts';
import { runEvents } from './run-counts.ts';

function job({
  suspend = false,
  ended,
}: { suspend?: boolean; ended?: 'Complete' | 'Failed' } = {}): Workload {
  return projectWorkload('Job', {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: 'run', namespace: 'finance', uid: '1' },
    spec: { suspend, template: { spec: { serviceAccountName: 'invoice' } } },
    status: {
      conditions:
        ended === undefined
          ? []
          : [{ type: ended, status: 'True', lastTransitionTime: '2026-01-01T00:00:00Z' }],
    },
  } as never);
}

const watched = { isFirstList: false };

describe('what a change of a Job says of its run', () => {
  it.each([
    ['one that is new has started', { type: 'added', object: job() }, ['started']],
    [
      'one that is created suspended has not',
      { type: 'added', object: job({ suspend: true }) },
      [],
    ],
    [
      'it starts when it is let go',
      { type: 'updated', object: job(), previous: job({ suspend: true }) },
      ['started'],
    ],
    ['one that runs on tells nothing', { type: 'updated', object: job(), previous: job() }, []],
    [
      'it succeeds once',
      { type: 'updated', object: job({ ended: 'Complete' }), previous: job() },
      ['succeeded'],
    ],
    [
      'it fails once',
      { type: 'updated', object: job({ ended: 'Failed' }), previous: job() },
      ['failed'],
    ],
    [
      'what ended stays ended',
      {
        type: 'updated',
        object: job({ ended: 'Failed' }),
        previous: job({ ended: 'Failed', suspend: true }),
      },
      [],
    ],
    [
      'one that came and ended between two looks did both',
      { type: 'added', object: job({ ended: 'Complete' }) },
      ['started', 'succeeded'],
    ],
    ['one that is deleted tells nothing', { type: 'deleted', object: job() }, []],
  ] as const)('%s', (_, change, events) => {
    expect(runEvents(change, watched)).toEqual(events);
  });

  it('what the first list has is from before', () => {
    const change = { type: 'added', object: job({ ended: 'Failed' }) } as const;
    expect(runEvents(change, { isFirstList: true })).toEqual([]);
  });
});
