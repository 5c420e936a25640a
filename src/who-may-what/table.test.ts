import { expect, it } from 'vitest';
import { actions, separations, type Action } from './table.ts';

it.each(separations.filter((one) => 'tried' in one))(
  'what keeps $duties apart is refused in the table, too',
  ({ tried }) => {
    const action: Action | undefined = actions.find(({ id }) => id === tried.id);
    expect(action?.by).not.toContain(tried.as);
    expect(action?.by).not.toEqual([]);
  },
);
