import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { events } from './actions.ts';

const actions: readonly string[] = events.flatMap((row) => [...row.actions]);

it('each action is of one event', () => {
  expect(actions.filter((action, index) => actions.indexOf(action) !== index)).toEqual([]);
});

// That no other is written, the type of a draft sees to.
it('each action is written somewhere', () => {
  const files = globSync('*.ts', { cwd: import.meta.dirname }).filter(
    (file) => !/^actions|\.(test|testing)\.ts$/.test(file),
  );
  const texts = files.map((file) => readFileSync(path.join(import.meta.dirname, file), 'utf8'));
  const code = texts.join('\n');
  expect(actions.filter((action) => !code.includes(`'${action}'`))).toEqual([]);
});
