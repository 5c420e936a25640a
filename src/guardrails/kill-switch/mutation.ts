import { setTimeout as delay } from 'node:timers/promises';
import { isUnstamped, killSwitchCreationPolicyName } from '../../admission/index.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import { resources } from '../../api/resources.ts';
import type { Logger } from '../../observability/logger.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { ApiError } from '../../runtime/errors.ts';

export interface MutationOptions {
  client: KubeClient;
  logger: Logger;
  metrics: {
    /** Whether admission rewrites requests. */
    setAdmissionMutation(isInForce: boolean): void;
  };
  /** A namespace that exists: the operator's own. */
  namespace: string;
}

/**
 * Whether admission rewrites requests: MutatingAdmissionPolicy v1 is served (Kubernetes 1.36 and
 * later), and ours are installed and in force. Known by what becomes of a request, not by what is
 * served or installed: a new KillSwitch that names nobody, in a dry run, comes back with a name
 * where admission stamps it, and is refused where only the validating policies are in force.
 */
export class Mutation {
  readonly #options: MutationOptions;
  #isInForce: boolean | undefined;
  #asking: Promise<void> | undefined;
  readonly #listeners: (() => void)[] = [];

  constructor(options: MutationOptions) {
    this.#options = options;
  }

  /** The last answer; `undefined` before the first one. */
  get isInForce(): boolean | undefined {
    return this.#isInForce;
  }

  /** Calls back whenever the answer is another one than before. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /**
   * Asks the API server; who asks meanwhile shares the answer. Without an answer the last one stays.
   *
   * @returns the last answer
   */
  async ask(signal: AbortSignal): Promise<boolean | undefined> {
    this.#asking ??= this.#ask(signal).finally(() => {
      this.#asking = undefined;
    });
    await this.#asking;
    return this.#isInForce;
  }

  /** Asks every `everyMs` milliseconds until the signal aborts. Never rejects. */
  async run(signal: AbortSignal, everyMs: number): Promise<void> {
    while (!signal.aborted) {
      await this.ask(signal);
      await delay(everyMs, undefined, { signal }).catch(() => undefined);
    }
  }

  async #ask(signal: AbortSignal): Promise<void> {
    const { client, logger, metrics, namespace } = this.#options;
    let isInForce: boolean;
    try {
      const answer = await client.create(resources.killSwitches, question(namespace), {
        dryRun: true,
        signal,
      });
      isInForce = (answer.spec.engagedBy ?? '') !== '';
    } catch (error) {
      if (
        !(error instanceof ApiError && isUnstamped(error.message, killSwitchCreationPolicyName))
      ) {
        if (!signal.aborted)
          logger.warn('Whether admission rewrites requests is unknown', { error });
        return;
      }
      isInForce = false;
    }
    metrics.setAdmissionMutation(isInForce);
    if (isInForce === this.#isInForce) return;
    this.#isInForce = isInForce;
    if (isInForce) logger.info('Admission rewrites requests: workloads are paused by admission');
    else logger.warn('Admission rewrites no requests: workloads are paused by patch');
    for (const listener of this.#listeners) listener();
  }
}

function question(namespace: string): KillSwitch {
  const name = 'who-engages';
  return {
    metadata: { namespace, name },
    spec: { workflow: name, reason: 'Asks whether admission stamps who engages; never stored.' },
  };
}
