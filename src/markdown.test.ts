import { expect, it } from 'vitest';
import { table } from './markdown.ts';

it('a table keeps its columns, whatever stands in its cells', () => {
  expect(
    table(
      ['who', 'what'],
      [
        ['alice', 'a | b'],
        ['bob', 'c'],
      ],
    ),
  ).toBe('| who | what |\n| --- | --- |\n| alice | a \\| b |\n| bob | c |');
});
