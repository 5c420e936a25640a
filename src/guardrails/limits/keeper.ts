import type { KillSwitch } from '../../api/kill-switch.ts';
import { keyOf } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { Workflow, WorkflowSpec } from '../../api/workflow.ts';
import type { Workload } from '../../api/workload.ts';
import type { Logger } from '../../observability/logger.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { isAlreadyExists } from '../../runtime/errors.ts';
import type { GoneRuns } from './gone-runs.ts';
import { acknowledgementOf, killSwitchFor, marksPatch } from './hold.ts';
import { plan, runOf, type Counted, type Run } from './plan.ts';

export interface LimitKeeperOptions {
  client: Pick<KubeClient, 'get' | 'create' | 'mergePatch'>;
  goneRuns: Pick<GoneRuns, 'of' | 'forget'>;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

interface Context {
  signal: AbortSignal;
  log: Logger;
}

/** What was counted, and from what. */
export interface Count extends Counted {
  runs: readonly Run[];
}

/**
 * Counts the runs of a Workflow, and stops it when a limit is breached. The count is stored first;
 * the marks by which admission holds follow from what is stored, so that a crash in between loses
 * neither. A KillSwitch stands by itself, and comes first.
 */
export class LimitKeeper {
  readonly #options: LimitKeeperOptions;

  constructor(options: LimitKeeperOptions) {
    this.#options = options;
  }

  /** @returns whether marks were written: the change brings the Workflow back */
  async mark(workflow: Workflow, { signal, log }: Context): Promise<boolean> {
    const patch = marksPatch(workflow);
    if (patch === undefined) return false;
    const { name, namespace = '' } = workflow.metadata;
    await this.#options.client.mergePatch(resources.workflows, { namespace, name }, patch, {
      signal,
    });
    log.info('The marks of a breached limit changed', {
      breaches: workflow.status?.runs?.breaches ?? [],
    });
    return true;
  }

  /**
   * @param spec `undefined` where it can't be read: what was counted stays as it is
   * @param jobs those that run as the Workflow
   * @param killSwitch of the same name, as far as a cache knows
   */
  async count(
    { workflow, spec }: { workflow: Workflow; spec: WorkflowSpec | undefined },
    jobs: readonly Workload[],
    killSwitch: KillSwitch | undefined,
    context: Context,
  ): Promise<Count> {
    const { goneRuns, clock } = this.#options;
    const stored = workflow.status?.runs;
    if (spec === undefined) return { ledger: stored, crossed: [], runs: [] };
    const runs = [...jobs.map((job) => runOf(job)), ...goneRuns.of(keyOf(workflow))];
    const counted = plan({
      ledger: stored,
      limits: spec.limits,
      runs,
      now: clock(),
      acknowledgement: acknowledgementOf(workflow),
      isReleased: await this.#isReleased(workflow, killSwitch, context),
    });
    const { ledger } = counted;
    const { breaches = [], killSwitch: standing } = ledger ?? {};
    const kills = breaches.length > 0 && standing === undefined && spec.limits?.onBreach === 'Kill';
    if (ledger === undefined || !kills) return { ...counted, runs };
    const uid = await this.#kill(killSwitchFor(workflow, breaches), context);
    return { ...counted, runs, ledger: { ...ledger, killSwitch: uid } };
  }

  /** What was counted is stored. */
  stored({ runs }: Count): void {
    this.#options.goneRuns.forget(runs);
  }

  /** Whether the KillSwitch that stood for a breach is gone; a cache may not know it yet. */
  async #isReleased(
    { metadata, status }: Workflow,
    cached: KillSwitch | undefined,
    { signal }: Context,
  ): Promise<boolean> {
    const uid = status?.runs?.killSwitch;
    if (uid === undefined || cached?.metadata.uid === uid) return false;
    const { name, namespace = '' } = metadata;
    const key = { namespace, name };
    const live = await this.#options.client.get(resources.killSwitches, key, { signal });
    return live?.metadata.uid !== uid;
  }

  /** @returns UID of the KillSwitch: one that somebody else engaged does as well */
  async #kill(killSwitch: KillSwitch, { signal, log }: Context): Promise<string> {
    const { client } = this.#options;
    const { name, namespace = '' } = killSwitch.metadata;
    try {
      const engaged = await client.create(resources.killSwitches, killSwitch, { signal });
      log.warn('Kill switch engaged by a breached limit', { reason: killSwitch.spec.reason });
      return engaged.metadata.uid ?? '';
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      const standing = await client.get(resources.killSwitches, { namespace, name }, { signal });
      if (standing === undefined) throw error;
      return standing.metadata.uid ?? '';
    }
  }
}
