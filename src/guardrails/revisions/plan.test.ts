import { describe, expect, it } from 'vitest';
import { annotation } from '../../api/names.ts';
import type { Workflow } from '../../api/workflow.ts';
import { maxChangers, type WorkflowRevision } from '../../api/workflow-revision.ts';
import {
  barredFrom,
  isNew,
  outlived,
  revisionAfter,
  sourceOf,
  statusesOf,
  type Standing,
} from './plan.ts';

const now = Date.UTC(2030, 0, 1);

function workflow(approvedDigest?: string, change?: Workflow['spec']['change']): Workflow {
  return {
    metadata: { namespace: 'finance', name: 'poster', uid: 'w' },
    spec: {
      targets: [{ group: 'apps', kind: 'Deployment', name: 'poster' }],
      ...(change !== undefined && { change }),
    },
    ...(approvedDigest !== undefined && {
      status: {
        revision: { digest: approvedDigest, approved: { digest: approvedDigest, parts: [] } },
      },
    }),
  };
}

/** Of one part, whose digest is that of all. */
function standing(digest: string, changedBy: string, of = workflow()): Standing {
  return {
    workflow: of,
    digest,
    parts: [{ name: 'Workflow', digest }],
    stamps: new Map([['Workflow', changedBy]]),
    contents: new Map([['Workflow', { digest }]]),
  };
}

/** What was recorded of changes, each by somebody; `!` behind a digest: approved. */
function history(...changes: [digest: string, changedBy: string][]): WorkflowRevision[] {
  const recorded: WorkflowRevision[] = [];
  let approvedDigest: string | undefined;
  for (const [what, changedBy] of changes) {
    const [digest = '', approved] = what.split('!');
    const next = revisionAfter(recorded, standing(digest, changedBy, workflow(approvedDigest)));
    if (approved !== undefined) {
      next.status = { active: true, approved: { time: '2030-01-01T00:00:00Z', by: ['dave'] } };
      approvedDigest = digest;
    }
    recorded.push(next);
  }
  return recorded;
}

describe('a revision', () => {
  it('is numbered, and tells who was authenticated from who is asserted', () => {
    const change = { requestedBy: 'frank', reason: 'VAT', ticket: 'FIN-1', commit: 'abc' };
    const next = revisionAfter(
      history(['a!', 'alice']),
      standing('b', 'bob', workflow('a', change)),
    );
    expect(next.metadata.name).toBe('poster.2');
    expect(next.metadata.ownerReferences).toEqual([
      expect.objectContaining({ kind: 'Workflow', name: 'poster', uid: 'w', controller: true }),
    ]);
    expect(next.spec).toMatchObject({
      revision: 2,
      digest: 'b',
      authenticated: ['bob'],
      asserted: change,
      changers: ['bob', 'frank'],
    });
    expect(next.spec.sameAs).toBeUndefined();
  });

  it('names who changed what differs, and nobody else', () => {
    const before = revisionAfter([], {
      ...standing('x', 'alice'),
      parts: [
        { name: 'Workflow', digest: 'w' },
        { name: 'Deployment poster', digest: 'd' },
      ],
    });
    const next = revisionAfter([before], {
      ...standing('y', 'alice'),
      parts: [
        { name: 'Workflow', digest: 'w' },
        { name: 'Deployment poster', digest: 'e' },
      ],
      stamps: new Map([
        ['Workflow', 'alice'],
        ['Deployment poster', 'tom'],
      ]),
    });
    expect(next.spec.authenticated).toEqual(['tom']);
  });

  it('keeps as many contents as fit, and of the others their digests', () => {
    const parts = Array.from({ length: 20 }, (_, index) => ({ name: `Job ${index}`, digest: 'd' }));
    const contents = new Map(parts.map(({ name }) => [name, { args: manyWords }]));
    const { spec } = revisionAfter([], { ...standing('a', 'alice'), parts, contents });
    const kept = spec.parts.filter(({ content }) => content !== undefined);
    expect(kept.length).toBeGreaterThan(4);
    expect(kept.length).toBeLessThan(20);
    expect(JSON.stringify(spec).length).toBeLessThan(1_000_000);
    expect(spec.parts.every(({ digest }) => digest === 'd')).toBe(true);
  });

  it('is made when something changed, and not of runs that come and go', () => {
    const [newest] = history(['a', 'alice']);
    const parts = [{ name: 'Workflow', digest: 'a' }];
    const withRun = { digest: 'r', parts: [...parts, { name: 'Job run-1', digest: 'j' }] };
    expect(isNew(undefined, withRun, false)).toBe(true);
    expect(isNew(newest, { digest: 'a', parts }, true)).toBe(false);
    expect(isNew(newest, withRun, false)).toBe(false);
    expect(isNew(newest, withRun, true)).toBe(true);
    expect(isNew(newest, { digest: 'b', parts: [{ name: 'Workflow', digest: 'b' }] }, false)).toBe(
      true,
    );
  });
});

describe('where a Workflow was promoted from', () => {
  const source = history(['a!', 'alice'], ['b', 'bob']).map((revision) => ({
    ...revision,
    metadata: { ...revision.metadata, namespace: 'dev' },
  }));
  const [ran] = source;
  if (ran?.status !== undefined) ran.status.activated = '2030-01-01T00:00:00Z';

  it.each<[string, WorkflowRevision['spec']['promotedFrom']]>([
    ['a', { namespace: 'dev', revision: 1 }],
    // It was never in force there.
    ['b', undefined],
    ['c', undefined],
  ])('is told of %s', (digest, promotedFrom) => {
    expect(revisionAfter([], { ...standing(digest, 'carol'), source }).spec.promotedFrom).toEqual(
      promotedFrom,
    );
  });

  it('is another namespace', () => {
    const says = (namespace: string): Workflow => ({
      ...workflow(),
      metadata: {
        namespace: 'finance',
        name: 'poster',
        annotations: { [annotation.promotedFrom]: namespace },
      },
    });
    expect(sourceOf(says('dev'))).toBe('dev');
    expect(sourceOf(says('finance'))).toBeUndefined();
    expect(sourceOf(workflow())).toBeUndefined();
  });
});

const manyWords = Array.from({ length: 6_000 }, (_, index) => `word${index}`);

describe('who can not approve a digest', () => {
  it.each<[string, [string, string][], string, string | undefined, string[]]>([
    ['nobody known of a first one', [], 'a', undefined, []],
    [
      'all since what was approved last',
      [
        ['a!', 'alice'],
        ['b', 'bob'],
        ['c', 'carol'],
      ],
      'c',
      'a',
      ['bob', 'carol'],
    ],
    [
      'also of one that is not recorded yet',
      [
        ['a!', 'alice'],
        ['b', 'bob'],
      ],
      'c',
      'a',
      ['bob'],
    ],
    [
      'nobody of before, once it was approved',
      [
        ['a!', 'alice'],
        ['b!', 'bob'],
      ],
      'c',
      'b',
      [],
    ],
    [
      'its own changers, where it is what was approved',
      [
        ['a!', 'alice'],
        ['b', 'bob'],
      ],
      'a',
      'a',
      ['alice'],
    ],
    [
      'its own changers, however often it is put back',
      [
        ['a!', 'alice'],
        ['b', 'bob'],
        ['a', 'bob'],
      ],
      'a',
      'a',
      ['alice'],
    ],
    [
      'those of then and of now, where it was approved before that',
      [
        ['a!', 'alice'],
        ['b!', 'bob'],
        ['a', 'carol'],
      ],
      'a',
      'b',
      ['alice', 'carol'],
    ],
  ])('%s', (_, changes, digest, approved, barred) => {
    expect(barredFrom(history(...changes), digest, approved).barred).toEqual(barred);
  });

  it('is everybody where more changed it than are named', () => {
    const crowd = Array.from({ length: maxChangers + 5 }, (_, index): [string, string] => [
      `d${index}`,
      `user${index}`,
    ]);
    const recorded = history(['a!', 'alice'], ...crowd);
    expect(barredFrom(recorded, 'z', 'a').isCrowded).toBe(true);
    expect(recorded.at(-1)?.spec.changers).toHaveLength(maxChangers);
    expect(barredFrom(recorded, 'a', 'a').isCrowded).toBe(false);
  });
});

describe('what became of revisions', () => {
  it('is that one is in force: the new one first, then not the old one', () => {
    const recorded = history(['a!', 'alice'], ['b', 'bob']);
    const changed = statusesOf(recorded, { digest: 'b', approvedBy: ['carol'] }, now);
    expect(changed.map(({ revision, status }) => [revision.spec.digest, status])).toEqual([
      [
        'b',
        {
          active: true,
          activated: '2030-01-01T00:00:00Z',
          approved: { time: '2030-01-01T00:00:00Z', by: ['carol'] },
        },
      ],
      ['a', { active: false, approved: { time: '2030-01-01T00:00:00Z', by: ['dave'] } }],
    ]);
    for (const { revision, status } of changed) revision.status = status;
    expect(statusesOf(recorded, { digest: 'b', approvedBy: ['carol', 'dave'] }, now)).toEqual([]);
    const [expired] = statusesOf(recorded, undefined, now);
    expect(expired?.status).toMatchObject({ active: false, approved: { by: ['carol'] } });
  });

  it('is nothing approved where nobody has to', () => {
    const [first] = statusesOf(
      history(['a', 'alice']),
      { digest: 'a', approvedBy: undefined },
      now,
    );
    expect(first?.status).toEqual({ active: true, activated: '2030-01-01T00:00:00Z' });
  });
});

describe('the history', () => {
  it('lets the oldest go, and never what is in force, approved last, or being decided on', () => {
    const recorded = history(
      ['a!', 'alice'],
      ['b!', 'bob'],
      ...Array.from({ length: 10 }, (_, index): [string, string] => [`x${index}`, 'carol']),
    );
    for (const { status } of recorded) if (status !== undefined) status.active = false;
    const gone = outlived(recorded, 3, new Set(['x2', 'a'])).map(({ spec }) => spec.digest);
    expect(gone).toEqual(['x6', 'x5', 'x4', 'x3', 'x1', 'x0', 'a']);
    const [first] = recorded;
    if (first?.status !== undefined) first.status.active = true;
    expect(outlived(recorded, 3, new Set()).map(({ spec }) => spec.digest)).not.toContain('a');
  });
});
