import { glob, readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));

/** Where the code names one: a field, an event's second argument, one answer of two. */
const places = [
  /\breason: [^\n]*/g,
  /\b(?:normal|warning)\(\s*[^'`]*?,\s*'\w+'/g,
  /\breturn [^\n]*\? '\w+' : [^\n]*reason/g,
];

async function reasonsInCode(): Promise<Set<string>> {
  const reasons = new Set<string>();
  for await (const file of glob('src/{controllers,guardrails}/**/*.ts', { cwd: root })) {
    if (/\.(test|testing)\.ts$/.test(file)) continue;
    const text = await readFile(path.join(root, file), 'utf8');
    for (const place of places.flatMap((pattern) => text.match(pattern) ?? [])) {
      for (const [, reason = ''] of place.matchAll(/(?<!=== )'([A-Z][A-Za-z]+)'/g))
        reasons.add(reason);
    }
  }
  return reasons;
}

it('every reason of a condition and of an event is documented, and none that is not there', async () => {
  const page = await readFile(path.join(root, 'docs/reference/conditions.md'), 'utf8');
  const rows = page.split('\n').filter((line) => line.startsWith('| '));
  const documented = new Set(
    rows.flatMap(
      (row) =>
        // The first or second cell: events have theirs first, conditions behind the status.
        (/^\| (?:(?:True|False|Unknown) \| )?([^|]*)\|/.exec(row)?.[1] ?? '').match(
          /(?<=`)[A-Z][A-Za-z]+(?=`)/g,
        ) ?? [],
    ),
  );
  // Events named after the type of a condition.
  const types = [
    'Ready',
    'Held',
    'ExcessPermissions',
    'RotationOverdue',
    'ReviewOverdue',
    'Fenced',
    'Paused',
    'PodsGone',
    'Contested',
    'FenceInForce',
    'PoliciesIntact',
    'PermissionsRevoked',
    'SecretsWithdrawn',
    'IdentityRevoked',
    'TokensRevoked',
    'EgressClosed',
    'Effective',
  ];
  const inCode = await reasonsInCode();
  expect(inCode.size).toBeGreaterThan(30);
  expect(documented.difference(new Set(types))).toEqual(inCode.difference(new Set(types)));
});
