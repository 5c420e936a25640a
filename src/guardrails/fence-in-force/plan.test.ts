import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { admissionPolicies, type AdmissionObject } from '../../admission/index.ts';
import { compare, fenceInForceFindings, forceByComparison, type PolicyState } from './plan.ts';

const all = admissionPolicies();
const [policy] = all;
const pair = all.filter(({ metadata }) => metadata.name === policy?.metadata.name);

function compareWith(specs: ReadonlyMap<string, unknown>): ReturnType<typeof compare> {
  return compare(pair, (kind) => {
    const spec = specs.get(kind);
    return spec === undefined ? 'absent' : { spec };
  });
}

const stored = (): Map<string, AdmissionObject['spec']> =>
  new Map(pair.map(({ kind, spec }) => [kind, structuredClone(spec)]));

/** As the API server answers: with what it adds, and without what is empty. */
function asServed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(asServed);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, field]) => JSON.stringify(field) !== '{}')
      .map(([key, field]) => [key, asServed(field)]),
  );
}

describe('the comparison of a stored policy with the installed one', () => {
  it.each(all)(
    'takes what the API server leaves out for the same: $kind $metadata.name',
    (object) => {
      const served = asServed(object.spec);
      expect(compare([object], () => ({ spec: served }))).toEqual({ kind: 'Same' });
    },
  );

  it('takes what the API server adds for the same', () => {
    if (policy?.spec.matchConstraints === undefined) throw new Error('no policy');
    const { resourceRules } = policy.spec.matchConstraints;
    const added = {
      ...policy.spec,
      matchConstraints: { resourceRules, matchPolicy: 'Equivalent' },
    };
    const installed = structuredClone(policy);
    Reflect.set(installed.spec, 'matchConstraints', { resourceRules });
    expect(compare([installed], () => ({ spec: added }))).toEqual({ kind: 'Same' });
  });

  it('finds what is missing, and says what', () => {
    expect(compareWith(new Map())).toEqual({ kind: 'Differs', what: 'the policy is missing' });
    const [first] = stored();
    expect(compareWith(new Map(first === undefined ? [] : [first]))).toEqual({
      kind: 'Differs',
      what: 'its binding is missing',
    });
  });

  it('knows nothing of what was not read', () => {
    expect(compare(pair, () => 'not read')).toEqual({ kind: 'NotRead' });
    expect(forceByComparison({ kind: 'NotRead' }).kind).toBe('Unknown');
  });

  it('finds every change of a value, wherever it is', () => {
    const leaves = all.flatMap((object) => pathsOf(object.spec).map((at) => ({ object, at })));
    fc.assert(
      fc.property(fc.constantFrom(...leaves), ({ object, at }) => {
        const spec: unknown = structuredClone(object.spec);
        replaceAt(spec, at);
        expect(compare([object], () => ({ spec })).kind).toBe('Differs');
      }),
    );
  });

  it('finds every field that is added', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('excludeResourceRules', 'matchConditions', 'auditAnnotations', 'x'),
        (field) => {
          const spec = { ...pair[0]?.spec, [field]: [{ name: 'never', expression: 'false' }] };
          if (pair[0]?.spec[field as 'matchConditions'] !== undefined) return;
          expect(compare(pair.slice(0, 1), () => ({ spec })).kind).toBe('Differs');
        },
      ),
    );
  });
});

/** Paths of all values that are neither maps nor lists. */
function pathsOf(value: unknown, at: readonly string[] = []): string[][] {
  if (typeof value !== 'object' || value === null) return [[...at]];
  return Object.entries(value).flatMap(([key, inner]) => pathsOf(inner, [...at, key]));
}

function replaceAt(value: unknown, [key = '', ...rest]: readonly string[]): void {
  if (typeof value !== 'object' || value === null) return;
  if (rest.length === 0) Reflect.set(value, key, 'something else');
  else replaceAt(Reflect.get(value, key), rest);
}

describe('the conditions of the canary', () => {
  const good: PolicyState = {
    name: 'good',
    force: { kind: 'InForce' },
    comparison: { kind: 'Same' },
  };
  const open: PolicyState = { ...good, name: 'open', force: { kind: 'NotInForce', why: 'gone' } };
  const silent: PolicyState = { ...good, name: 'silent', force: { kind: 'Unknown', why: '503' } };
  const edited: PolicyState = {
    ...good,
    name: 'edited',
    comparison: { kind: 'Differs', what: 'spec.x differs' },
  };
  const statuses = (...states: PolicyState[]): string[] =>
    fenceInForceFindings(states).map(({ status, reason }) => `${status} ${reason}`);

  it('are true where every policy answers and is as it was installed', () => {
    expect(statuses(good, good)).toEqual([
      'True PoliciesAnswered',
      'True AsInstalled',
      'True PoliciesAnswered',
    ]);
  });

  it('name the policy that is not in force before those that are not known', () => {
    const [inForce] = fenceInForceFindings([good, silent, open]);
    expect(inForce).toMatchObject({ status: 'False', reason: 'PolicyNotInForce' });
    expect(inForce?.message).toContain('open (gone)');
    expect(statuses(good, silent)[0]).toBe('Unknown PolicyNotAnswered');
    expect(statuses(good, silent)[2]).toBe('Unknown PolicyNotAnswered');
  });

  it('tell an edit from an open fence', () => {
    expect(statuses(good, edited)).toEqual([
      'True PoliciesAnswered',
      'False PolicyEdited',
      'False PolicyEdited',
    ]);
  });

  it('stay short, however many policies there are', () => {
    const many = Array.from({ length: 60 }, (_, index) => ({ ...open, name: `policy-${index}` }));
    const [inForce] = fenceInForceFindings(many);
    expect(inForce?.message).toContain('and 55 more');
  });
});
