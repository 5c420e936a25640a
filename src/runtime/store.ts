import { keyOf, type KubeObject } from '../api/objects.ts';

/** What controllers may ask of a cache. Its objects are frozen and shared: clone before changing. */
export interface ReadStore<T> {
  /** By `namespace/name`, or `name` where the kind has no namespace. */
  get(key: string): T | undefined;
  /** All objects, as they are while you iterate. */
  list(): Iterable<T>;
  /**
   * The objects for which the index function gave `value`.
   *
   * @throws RangeError for an index that the store wasn't made with
   */
  byIndex(index: string, value: string): readonly T[];
  readonly size: number;
}

/** Keys of all objects, as they are now: of each what `keyOf` makes. */
export function keysIn(store: Pick<ReadStore<KubeObject>, 'list'>): string[] {
  return [...store.list()].map(keyOf);
}

/** Values under which an object is found, by name of the index. */
export type Indexes<T> = Readonly<Record<string, (object: T) => readonly string[]>>;

/** Objects by key, with secondary indexes that follow every change. */
export class ObjectStore<T extends KubeObject> implements ReadStore<T> {
  readonly #indexes: readonly Index<T>[];
  #objects = new Map<string, T>();

  constructor(indexes: Indexes<T> = {}) {
    this.#indexes = Object.entries(indexes).map(([name, valuesOf]) => new Index(name, valuesOf));
  }

  get size(): number {
    return this.#objects.size;
  }

  get(key: string): T | undefined {
    return this.#objects.get(key);
  }

  list(): Iterable<T> {
    return this.#objects.values();
  }

  byIndex(index: string, value: string): readonly T[] {
    const found = this.#indexes.find(({ name }) => name === index);
    if (found === undefined) throw new RangeError(`the store has no index ${index}`);
    return found.get(value);
  }

  /**
   * Freezes the object and puts it in place of the one with its key.
   *
   * @returns the object that it replaced
   * @throws whatever an index function throws; the store is then unchanged
   */
  set(object: T): T | undefined {
    const key = keyOf(object);
    const values = this.#indexes.map((index) => index.valuesOf(object));
    const previous = this.#objects.get(key);
    this.#objects.set(key, freeze(object));
    for (const [position, index] of this.#indexes.entries()) {
      index.put(key, object, values[position] ?? []);
    }
    return previous;
  }

  /** @returns the object that was there */
  delete(key: string): T | undefined {
    const previous = this.#objects.get(key);
    this.#objects.delete(key);
    for (const index of this.#indexes) index.remove(key);
    return previous;
  }
}

class Index<T> {
  readonly name: string;
  readonly valuesOf: (object: T) => readonly string[];
  readonly #objects = new Map<string, Map<string, T>>();
  /** The values of each key, since the index function may not give them for a changed object. */
  readonly #values = new Map<string, readonly string[]>();

  constructor(name: string, valuesOf: (object: T) => readonly string[]) {
    this.name = name;
    this.valuesOf = valuesOf;
  }

  get(value: string): readonly T[] {
    return [...(this.#objects.get(value)?.values() ?? [])];
  }

  put(key: string, object: T, values: readonly string[]): void {
    this.remove(key);
    if (values.length === 0) return;
    this.#values.set(key, values);
    for (const value of values) {
      const objects = this.#objects.get(value);
      if (objects === undefined) this.#objects.set(value, new Map([[key, object]]));
      else objects.set(key, object);
    }
  }

  remove(key: string): void {
    for (const value of this.#values.get(key) ?? []) {
      const objects = this.#objects.get(value);
      objects?.delete(key);
      if (objects?.size === 0) this.#objects.delete(value);
    }
    this.#values.delete(key);
  }
}

/** The object and its metadata; deeper would cost more than it protects. */
function freeze<T extends KubeObject>(object: T): T {
  Object.freeze(object.metadata);
  return Object.freeze(object);
}
