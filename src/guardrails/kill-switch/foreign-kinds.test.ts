import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import type { KubeObject } from '../../api/objects.ts';
import { parseCatalogue } from './catalogue.ts';
import {
  foreignKinds,
  isInScope,
  isOver,
  keptText,
  keptValue,
  pauseValueOf,
  storedValueOf,
  type ForeignKind,
  type Scope,
} from './foreign-kinds.ts';

const everything: Scope = { covers: () => true, isStopped: () => false };
const scope: Scope = {
  covers: (name) => name === 'invoice',
  isStopped: (kind, name) => kind === 'Deployment' && name === 'web',
};

function kindOf(name: string): ForeignKind {
  const [found] = foreignKinds.filter(({ resource }) => resource.kind === name);
  if (found === undefined) throw new Error(`no kind ${name}`);
  return found;
}

function object(fields: object): KubeObject {
  return { metadata: { name: 'x', namespace: 'finance' }, ...fields };
}

const entry = {
  group: 'example.com',
  version: 'v1',
  kind: 'Robot',
  plural: 'robots',
  serviceAccountPath: 'spec.workers[].serviceAccountName',
  path: 'spec.mode',
  pausedValue: 'Off',
};

describe('the kinds that are known', () => {
  it('are each there once', () => {
    const names = foreignKinds.map(({ resource }) => `${resource.plural}.${resource.group}`);
    expect(new Set(names).size).toBe(names.length);
  });

  it.each([
    ['Rollout', { spec: { template: { spec: { serviceAccountName: 'invoice' } } } }, true],
    ['Rollout', { spec: { template: { spec: { serviceAccountName: 'other' } } } }, false],
    ['Rollout', { spec: { workloadRef: { kind: 'Deployment', name: 'web' } } }, true],
    ['ScaledObject', { spec: { scaleTargetRef: { name: 'web' } } }, true],
    ['ScaledObject', { spec: { scaleTargetRef: { kind: 'StatefulSet', name: 'web' } } }, false],
    ['Workflow', { spec: { templates: [{}, null, { serviceAccountName: 'invoice' }] } }, true],
    ['Workflow', { spec: { templates: { serviceAccountName: 'invoice' } } }, false],
    ['PipelineRun', { spec: { taskRunSpecs: [{ serviceAccountName: 'invoice' }] } }, true],
    ['TaskRun', {}, false],
    ['TaskRun', { spec: null }, false],
  ])('%s %j is of the automation: %s', (name, fields, expected) => {
    expect(isInScope(kindOf(name), object(fields), scope)).toBe(expected);
  });

  it('that name no ServiceAccount run as the default one', () => {
    expect(isInScope(kindOf('TaskRun'), object({}), everything)).toBe(true);
    expect(isInScope(kindOf('ScaledObject'), object({}), everything)).toBe(false);
  });

  it.each([
    ['Workflow', { status: { phase: 'Running' } }, false],
    ['Workflow', { status: { phase: 'Error' } }, true],
    ['TaskRun', { status: { completionTime: '2026-05-01T12:00:00Z' } }, true],
    ['TaskRun', { status: {} }, false],
    ['Rollout', { status: { phase: 'Succeeded' } }, false],
  ])('%s %j is over: %s', (name, fields, expected) => {
    expect(isOver(kindOf(name), object(fields))).toBe(expected);
  });

  it('are read whatever they look like', () => {
    fc.assert(
      fc.property(fc.constantFrom(...foreignKinds), fc.object({ maxDepth: 5 }), (kind, fields) => {
        const strange = { ...fields, metadata: { name: 'x' } };
        isInScope(kind, strange, scope);
        isOver(kind, strange);
        const value = storedValueOf(kind, strange);
        expect(value === null ? pauseValueOf(kind, strange) : value).toBe(
          value === null ? kind.absent : pauseValueOf(kind, strange),
        );
      }),
    );
  });
});

describe('a value that is kept', () => {
  it('is read as it was', () => {
    const scalar = fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant(null));
    fc.assert(
      fc.property(scalar, (value) => {
        const text = keptText(value);
        if (text !== undefined) expect(keptValue(text)).toBe(value);
      }),
    );
  });

  it.each(['', '{}', '[1]', 'nul', '"a', '1 2', JSON.stringify('x'.repeat(2000))])(
    'is nothing but a scalar of bounded length: %j',
    (text) => {
      expect(keptValue(text)).toBeUndefined();
    },
  );

  it('is none where it would be too long', () => {
    expect(keptText('x'.repeat(2000))).toBeUndefined();
    expect(keptText(undefined)).toBeUndefined();
  });
});

describe('the catalogue of an administrator', () => {
  it('describes kinds like those that are known', () => {
    const [kind] = parseCatalogue('file', JSON.stringify([entry]));
    expect(kind).toMatchObject({
      resource: { group: 'example.com', version: 'v1', kind: 'Robot', plural: 'robots' },
      path: ['spec', 'mode'],
      paused: 'Off',
      restorable: true,
    });
    const workers = { spec: { workers: [{ serviceAccountName: 'invoice' }] } };
    expect(kind && isInScope(kind, object(workers), scope)).toBe(true);
  });

  it('can be empty', () => {
    expect(parseCatalogue('file', '[]')).toEqual([]);
  });

  it.each<[string, object, string]>([
    ['a kind of Kubernetes', { group: 'apps' }, '0.group'],
    ['one that decides over others', { group: 'rbac.authorization.k8s.io' }, '0.group'],
    ['the core group', { group: '' }, '0.group'],
    ['one of ours', { group: 'automationguardrails.dev' }, '0.group'],
    ['a field outside of spec', { path: 'metadata.finalizers' }, '0.path'],
    ['an expression', { path: "spec.containers[?(@.name=='x')]" }, '0.path'],
    ['a list', { path: 'spec.items[].suspend' }, '0.path'],
    ['a path through a prototype', { path: 'spec.__proto__.x' }, '0.path'],
    ['a value with parts', { pausedValue: {} }, '0.pausedValue'],
    ['an unknown field', { script: 'rm' }, '0'],
    ['another path', { serviceAccountPath: 'spec' }, '0.serviceAccountPath'],
    ['a path in the plural', { plural: 'robots/status' }, '0.plural'],
    [
      'a kind that is known',
      { group: 'keda.sh', plural: 'scaledjobs', kind: 'ScaledJob' },
      'described already',
    ],
  ])('refuses %s', (_, fields, problem) => {
    const text = JSON.stringify([{ ...entry, ...fields }]);
    expect(() => parseCatalogue('file', text)).toThrow(problem);
  });

  it('refuses what is no list, more than 32, and the same twice', () => {
    expect(() => parseCatalogue('file', 'a: b')).toThrow('The catalogue file');
    expect(() => parseCatalogue('file', 'a: [')).toThrow("isn't YAML");
    const many = Array.from({ length: 33 }, (_, index) => ({ ...entry, plural: `robots${index}` }));
    expect(() => parseCatalogue('file', JSON.stringify(many))).toThrow();
    expect(() => parseCatalogue('file', JSON.stringify([entry, entry]))).toThrow(
      '1 is described already',
    );
  });
});
