import type { Owner } from '../api/owner.ts';

/** What became of a run. */
export type RunEvent = 'started' | 'succeeded' | 'failed';

/** Runs of one automation since this process began. */
export interface RunCounts {
  /** `namespace/name`, or `other` for all beyond the first {@link maxAutomations}. */
  automation: string;
  team: string;
  escalation: string;
  counts: Readonly<Record<RunEvent, number>>;
}

/** Automations whose runs are told apart: a bound for Prometheus. */
export const maxAutomations = 200;

const other = 'other';

/** Counts runs by automation, in a bounded number of them. */
export class RunTally {
  readonly #known = new Map<string, RunCounts & { counts: Record<RunEvent, number> }>();

  /**
   * Tells of an automation from now on, also before its first run: a counter that isn't there yet
   * hides its first increase.
   */
  know(automation: string, owner?: Owner): void {
    const { team = '', escalation = '' } = owner ?? {};
    const known = this.#known.get(automation);
    if (known !== undefined) Object.assign(known, { team, escalation });
    else if (this.#told < maxAutomations) this.#begin({ automation, team, escalation });
    else if (!this.#known.has(other)) this.#begin({ automation: other, team: '', escalation: '' });
  }

  forget(automation: string): void {
    this.#known.delete(automation);
  }

  add(automation: string, event: RunEvent): void {
    const known = this.#known.get(automation) ?? this.#known.get(other);
    if (known !== undefined) known.counts[event] += 1;
  }

  list(): Iterable<RunCounts> {
    return this.#known.values();
  }

  get #told(): number {
    return this.#known.size - (this.#known.has(other) ? 1 : 0);
  }

  #begin(of: Omit<RunCounts, 'counts'>): void {
    this.#known.set(of.automation, { ...of, counts: { started: 0, succeeded: 0, failed: 0 } });
  }
}
