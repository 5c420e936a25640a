import { readFileSync } from 'node:fs';
import { load } from 'js-yaml';
import { describe, expect, it } from 'vitest';
import { chartValues } from './values-reference.ts';

const chart = new URL('../../charts/automation-guardrails/', import.meta.url);
const read = (file: string): string => readFileSync(new URL(file, chart), 'utf8');

interface Schema {
  properties?: Record<string, Schema>;
  additionalProperties?: unknown;
}

/** Paths of all keys, as far as the schema names them. */
function pathsOf(schema: Schema, path = ''): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([key, value]) => [
    `${path}${key}`,
    ...pathsOf(value, `${path}${key}.`),
  ]);
}

describe('the values of the chart', () => {
  const schema = JSON.parse(read('values.schema.json')) as Schema;

  it('are described, each with its default', () => {
    expect(chartValues(read('values.yaml'))).toContainEqual({
      path: 'admission.mutation',
      description: expect.stringContaining('`auto` where the API server serves') as string,
      default: '"auto"',
    });
  });

  it('may not stand without a description', () => {
    expect(() => chartValues('# -- What it is.\na: 1\nb:\n  c: 2\n')).toThrow('b.c');
  });

  it('are those that the schema knows: one that it forgets would be refused', () => {
    const known = new Set(pathsOf(schema));
    const described = chartValues(read('values.yaml')).map(({ path }) => path);
    expect(described.filter((path) => !known.has(path))).toEqual([]);
    const documented = new Set(described);
    // Helm's own, and what a value that is documented as a whole consists of.
    const isSaid = (path: string): boolean =>
      path === 'global' ||
      [...documented].some(
        (of) => of === path || path.startsWith(`${of}.`) || of.startsWith(`${path}.`),
      );
    expect([...known].filter((path) => !isSaid(path))).toEqual([]);
  });

  it('are refused where they are misspelt, at every level', () => {
    const open = (of: Schema, path: string): string[] => [
      ...(of.properties !== undefined && of.additionalProperties !== false ? [path] : []),
      ...Object.entries(of.properties ?? {}).flatMap(([key, value]) =>
        open(value, `${path}.${key}`),
      ),
    ];
    expect(open(schema, '')).toEqual([]);
    expect(Object.keys(load(read('values.yaml')) as object)).toContain('networkPolicy');
  });
});
