import type { ReadStore } from './store.ts';

/** Objects of several kinds as one collection. A key names one object of each kind: no `get`. */
export type IndexedStore<T> = Pick<ReadStore<T>, 'list' | 'byIndex'>;

/** Looks into all the stores; they must have the same indexes. */
export function mergeStores<T>(stores: readonly ReadStore<T>[]): IndexedStore<T> {
  return {
    *list(): Iterable<T> {
      for (const store of stores) yield* store.list();
    },
    byIndex(index: string, value: string): readonly T[] {
      return stores.flatMap((store) => store.byIndex(index, value));
    },
  };
}
