import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { keyOf, type KubeObject } from '../api/objects.ts';
import { ObjectStore } from './store.ts';

const byOwner = (stored: KubeObject): string[] =>
  (stored.metadata.labels?.['owners'] ?? '').split('');

function object(name: string, owners = ''): KubeObject {
  return { metadata: { namespace: 'default', name, labels: { owners } } };
}

describe('ObjectStore', () => {
  test('finds an object by its key until it is deleted', () => {
    const store = new ObjectStore();
    const stored = object('one');

    expect(store.set(stored)).toBeUndefined();
    expect(store.get('default/one')).toBe(stored);
    expect(store.delete('default/one')).toBe(stored);
    expect(store.get('default/one')).toBeUndefined();
    expect(store.delete('default/one')).toBeUndefined();
  });

  test('freezes what it stores, metadata included', () => {
    const store = new ObjectStore();
    store.set(object('one'));
    const stored = store.get('default/one');

    expect(() => Object.assign(stored ?? {}, { kind: 'X' })).toThrow(TypeError);
    expect(() => Object.assign(stored?.metadata ?? {}, { name: 'x' })).toThrow(TypeError);
  });

  test('forgets the values of an index that an object no longer has', () => {
    const store = new ObjectStore({ owner: byOwner });
    store.set(object('one', 'ab'));
    store.set(object('one', 'bc'));

    expect(store.byIndex('owner', 'a')).toEqual([]);
    expect(store.byIndex('owner', 'b').map(keyOf)).toEqual(['default/one']);
    expect(store.byIndex('owner', 'c').map(keyOf)).toEqual(['default/one']);
  });

  test('is unchanged where an index function throws', () => {
    const store = new ObjectStore<KubeObject>({
      owner: (stored) => {
        if (stored.metadata.name === 'bad') throw new Error('bad');
        return ['x'];
      },
    });
    store.set(object('one'));

    expect(() => store.set(object('bad'))).toThrow('bad');
    expect(store.size).toBe(1);
    expect(store.byIndex('owner', 'x')).toHaveLength(1);
  });

  test('refuses an index that it does not have', () => {
    expect(() => new ObjectStore().byIndex('owner', 'x')).toThrow(RangeError);
  });

  test('its indexes say what a search through all objects would say', () => {
    const owners = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 3 });
    const change = fc.record({
      name: fc.constantFrom('1', '2', '3', '4'),
      owners,
      remove: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(change), (changes) => {
        const store = new ObjectStore({ owner: byOwner });
        for (const { name, owners: letters, remove } of changes) {
          if (remove) store.delete(`default/${name}`);
          else store.set(object(name, letters));
        }
        for (const value of ['a', 'b', 'c']) {
          const found = store.byIndex('owner', value).map(keyOf).toSorted();
          const searched = [...store.list()].filter((o) => byOwner(o).includes(value)).map(keyOf);
          expect(found).toEqual(searched.toSorted());
        }
      }),
    );
  });
});
