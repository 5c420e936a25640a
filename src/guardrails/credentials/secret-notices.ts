import { some } from '../wording.ts';
import type { Notice } from './keeper.ts';

/** What happened to a Secret. */
export interface SecretNotice {
  /** CamelCase, stable. */
  reason: string;
  /** What is said of one Secret, and of several; each begins or ends with who they are. */
  one: (secret: string) => string;
  many: (secrets: string) => string;
}

/** What happened to the Secrets of one identity in one look: what is alike is one event. */
export class SecretNotices {
  readonly #told = new Map<string, { notice: SecretNotice; names: string[] }>();

  add(secretName: string, notice: SecretNotice): void {
    const key = `${notice.reason} ${notice.one('')}`;
    const told = this.#told.get(key) ?? { notice, names: [] };
    told.names.push(secretName);
    this.#told.set(key, told);
  }

  /** Says all of it, once. */
  tell(notify: (notice: Notice) => void): void {
    for (const { notice, names } of this.#told.values()) {
      const { reason, one, many } = notice;
      const who = some(names.toSorted());
      const message = names.length === 1 ? one(`Secret ${who}`) : many(`Secrets ${who}`);
      notify({ type: 'normal', reason, message });
    }
    this.#told.clear();
  }
}
