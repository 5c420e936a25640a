import { describe, expect, it } from 'vitest';
import { roles } from './manifests.ts';

describe('the roles of an installation', () => {
  it.each(roles.map((role) => [role.name, role.rules] as const))(
    '%s: no rule joins groups, and so grants a resource in a group that it is not of',
    (_, rules) => {
      for (const { apiGroups = [] } of rules) expect(apiGroups).toHaveLength(1);
    },
  );
});
