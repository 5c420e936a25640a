import { describe, expect, it } from 'vitest';
import type { RecordedPart } from '../../api/workflow-revision.ts';
import { differencesOf, type Difference } from './diff.ts';

function part(content: unknown, name = 'Deployment poster'): RecordedPart {
  const text = JSON.stringify(content);
  return { name, digest: text, content: text };
}

function told(before: unknown, after: unknown): string[] {
  return differencesOf([part(before)], [part(after)]).map(wordsOf);
}

function wordsOf({ path, before, after }: Difference): string {
  return `${path}: ${before ?? '-'} > ${after ?? '-'}`;
}

const containers = (...list: object[]): object => ({ spec: { containers: list } });

describe('what differs between two revisions', () => {
  it('is told by the path of each field', () => {
    expect(
      told(
        containers({ name: 'main', image: 'v1', args: ['a'] }),
        containers({ name: 'side', image: 'v1' }, { name: 'main', image: 'v2', args: ['a', 'b'] }),
      ),
    ).toEqual([
      'spec.containers[side]: - > {"name":"side","image":"v1"}',
      'spec.containers[main].image: "v1" > "v2"',
      'spec.containers[main].args[1]: - > "b"',
    ]);
  });

  it('is told of parts that came, went, or are kept by their digests alone', () => {
    const bare: RecordedPart = { name: 'Deployment poster', digest: 'd' };
    const all = differencesOf(
      [part({ a: 1 }, 'Workflow'), part({}), part({}, 'Job gone')],
      [part({ a: 2 }, 'Workflow'), bare, part({}, 'Job come')],
    );
    expect(all.map((one) => `${one.part} ${wordsOf(one)}`)).toEqual([
      'Workflow a: 1 > 2',
      'Deployment poster : digest {} > digest d',
      'Job come : - > digest {}',
      'Job gone : digest {} > -',
    ]);
  });

  it('is told where it is in what was left out', () => {
    const [one] = differencesOf(
      [{ name: 'Workflow', digest: 'a', content: '{}' }],
      [{ name: 'Workflow', digest: 'b', content: '{}' }],
    );
    expect(one).toMatchObject({ path: '', before: 'digest a', after: 'digest b' });
  });

  it('is bounded', () => {
    const many = Object.fromEntries(Array.from({ length: 5_000 }, (_, index) => [`k${index}`, 1]));
    const list = told({}, { ...many, long: 'x'.repeat(5_000) });
    expect(list).toHaveLength(201);
    expect(list.at(-1)).toBe('…: - > -');
    expect(told({ long: '' }, { long: 'x'.repeat(5_000) })[0]?.length).toBeLessThan(400);
  });
});
