import { waitFor } from '../control-plane/wait.ts';
import type { Witness } from '../operator/witness.ts';
import type { ArgoCd } from './argocd.ts';
import type { Flux } from './flux.ts';
import { warningsIn, type LogEntry } from './log.ts';

/** Who is watched. */
export interface Watched {
  fluxCd: Flux;
  argoCd: ArgoCd;
  witness: Witness;
}

/** Namespaces, each with the name of the Kustomization or Application that fills it. */
export interface Watchlist {
  flux: string;
  argo: readonly string[];
}

/** What a tool did, by its own log. */
export interface Tries {
  /** Its namespace. */
  who: string;
  tries: number;
  /** What it said of those that failed. */
  failed: string[];
  /** How often it was told that nothing starts. */
  warnings: number;
}

/** What the tools did while everything was to stay stopped. */
export class Watch {
  /** Pods that ran or were created. */
  readonly offences = new Set<string>();
  readonly #watched: Watched;
  readonly #list: Watchlist;
  /** Automated syncs of Argo CD by Application, as `revision, heal`. */
  readonly #syncs: ReadonlyMap<string, Set<string>>;
  /** Lines of their logs that were there before. */
  readonly #before: { flux: number; argo: number };

  private constructor(watched: Watched, list: Watchlist, before: { flux: number; argo: number }) {
    this.#watched = watched;
    this.#list = list;
    this.#before = before;
    this.#syncs = new Map(list.argo.map((one) => [one, new Set()]));
  }

  /** Counts from now on. */
  static async start(watched: Watched, list: Watchlist): Promise<Watch> {
    const { fluxCd, argoCd } = watched;
    const before = { flux: (await fluxCd.log()).length, argo: (await argoCd.log()).length };
    return new Watch(watched, list, before);
  }

  /** Has Flux reconcile, and looks until it has. */
  async reconcile(): Promise<void> {
    const { fluxCd } = this.#watched;
    const mark = await fluxCd.reconcile(this.#list.flux);
    await this.until(
      'Flux to reconcile on demand',
      async () => (await fluxCd.status(this.#list.flux)).lastHandledReconcileAt === mark,
    );
  }

  /** Looks until something has happened. */
  until(
    what: string,
    happened: () => boolean | Promise<boolean>,
    intervalMs = 500,
  ): Promise<boolean> {
    return waitFor(
      what,
      async () => {
        await this.#look();
        return happened();
      },
      { timeoutMs: 900_000, intervalMs },
    );
  }

  /** How often Argo CD has healed one commit; its own count. */
  heals(application: string, commit: string): number {
    const seen = [...(this.#syncs.get(application) ?? [])].map((sync) => sync.split(', '));
    return Math.max(0, ...seen.flatMap(([of, count]) => (of === commit ? [Number(count)] : [])));
  }

  /** What each tool did since the start. */
  async tries(): Promise<Tries[]> {
    const { flux, argo } = this.#list;
    const fluxLog = (await this.#watched.fluxCd.log()).slice(this.#before.flux);
    const argoLog = (await this.#watched.argoCd.log()).slice(this.#before.argo);
    const reconciliations = fluxLog.filter(
      ({ name, msg = '' }) => name === flux && /^Reconciliation (finished|failed)/.test(msg),
    );
    return [
      triesOf(flux, fluxLog, reconciliations),
      ...argo.map((one) => {
        const syncs = argoLog.filter(
          ({ application, reason }) => application === one && reason === 'OperationCompleted',
        );
        return triesOf(one, argoLog, syncs);
      }),
    ];
  }

  async #look(): Promise<void> {
    const { argoCd, witness } = this.#watched;
    for (const namespace of [this.#list.flux, ...this.#list.argo]) {
      for (const offence of await witness.offenders(namespace)) {
        this.offences.add(`${namespace}: ${offence}`);
      }
    }
    for (const [application, seen] of this.#syncs) {
      const { operationState: { operation, syncResult } = {} } = await argoCd.status(application);
      if (operation?.initiatedBy?.automated !== true || syncResult === undefined) continue;
      seen.add(`${syncResult.revision}, ${operation.sync?.autoHealAttemptsCount ?? 0}`);
    }
  }
}

function triesOf(who: string, log: readonly LogEntry[], tries: readonly LogEntry[]): Tries {
  return {
    who,
    tries: tries.length,
    failed: tries.flatMap(({ msg = '' }) => (/ (finished|succeeded)/.test(msg) ? [] : [msg])),
    warnings: warningsIn(who, log),
  };
}
