import { describe, expect, it } from 'vitest';
import type { Permission } from '../../api/automation-identity.ts';
import { maxReviews, questionsOf } from './access.ts';

const permission = (fields: Partial<Permission>): Permission => ({
  apiGroups: [''],
  resources: ['configmaps'],
  verbs: ['get'],
  reason: 'x',
  ...fields,
});

describe('questionsOf', () => {
  it.each([
    {
      what: 'every verb',
      given: permission({ verbs: ['get', 'list'] }),
      asked: ['get configmaps', 'list configmaps'],
    },
    {
      what: 'every resource, subresources apart',
      given: permission({ resources: ['pods', 'pods/log'] }),
      asked: ['get pods', 'get pods log'],
    },
    {
      what: 'every name',
      given: permission({ resourceNames: ['a', 'b'] }),
      asked: ['get configmaps a', 'get configmaps b'],
    },
    {
      what: 'every group',
      given: permission({ apiGroups: ['', 'apps'] }),
      asked: ['get configmaps', 'get apps configmaps'],
    },
  ])('asks about $what', ({ given, asked }) => {
    const questions = questionsOf('billing', [given]);
    expect(questions.every(({ namespace }) => namespace === 'billing')).toBe(true);
    expect(
      questions.map(({ verb, group, resource, subresource, name }) =>
        [verb, group, resource, subresource, name].filter((part) => part).join(' '),
      ),
    ).toEqual(asked);
  });

  it('asks a bounded number, and about every permission first', () => {
    const names = Array.from({ length: 64 }, (_, n) => `n${n}`);
    const wide = permission({ resourceNames: names, verbs: ['get', 'update'] });
    const questions = questionsOf('billing', [wide, wide, permission({ resources: ['pods'] })]);
    expect(questions).toHaveLength(maxReviews);
    expect(questions.slice(0, 3).map(({ resource }) => resource)).toEqual([
      'configmaps',
      'configmaps',
      'pods',
    ]);
  });
});
