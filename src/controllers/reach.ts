import { PROBE_NAMESPACE } from '../api/names.ts';
import { splitKey } from '../api/objects.ts';
import type { Config } from '../config.ts';

/**
 * In which namespaces the operator acts: in those that it was given and its own, or in all. It sees
 * the others, and says there that it does nothing.
 */
export class Reach {
  /** `undefined`: everywhere. */
  readonly #namespaces: ReadonlySet<string> | undefined;

  constructor({ namespaces, operatorNamespace }: Pick<Config, 'namespaces' | 'operatorNamespace'>) {
    this.#namespaces = namespaces && new Set([...namespaces, operatorNamespace, PROBE_NAMESPACE]);
  }

  /** Whether it was given a list. */
  get isLimited(): boolean {
    return this.#namespaces !== undefined;
  }

  /** @param namespace its name */
  covers(namespace: string): boolean {
    return this.#namespaces?.has(namespace) ?? true;
  }

  /** @param key `namespace/name`; what is in no namespace is covered */
  coversKey(key: string): boolean {
    const { namespace } = splitKey(key);
    return namespace === undefined || this.covers(namespace);
  }
}
