import { expect, it } from 'vitest';
import { overlapFinding, type Duties } from './plan.ts';

const executor = 'system:serviceaccount:finance:poster';
const duties: Duties = {
  executor,
  approvers: ['bob', 'carol'],
  releaser: 'dave',
  templates: [
    { name: 'Deployment poster', changedBy: 'alice' },
    { name: 'CronJob import', changedBy: undefined },
  ],
};

it.each<[string | undefined, Partial<Duties>]>([
  [undefined, {}],
  [undefined, { releaser: undefined }],
  ['ApproverIsReleaser', { releaser: 'Carol' }],
  ['ExecutorIsRequester', { templates: [{ name: 'Deployment poster', changedBy: executor }] }],
  [
    'ExecutorIsRequester',
    { releaser: 'bob', templates: [{ name: 'Deployment poster', changedBy: executor }] },
  ],
])('%s of %j', (reason, given) => {
  expect(overlapFinding({ ...duties, ...given })?.reason).toBe(reason);
});

it('names everything that overlaps', () => {
  const templates = [{ name: 'Deployment poster', changedBy: executor }];
  const { message } = overlapFinding({ ...duties, releaser: 'bob', templates }) ?? {};
  expect(message).toContain('Deployment poster');
  expect(message).toContain('bob approved what runs');
});
