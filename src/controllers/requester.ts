import type { AutomationIdentity, AutomationIdentitySpec } from '../api/automation-identity.ts';
import { keyOf, type ResourceAttributes } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import type { Workflow, WorkflowSpec } from '../api/workflow.ts';
import { questionsOf } from '../guardrails/identity/access.ts';
import {
  knownAnswer,
  maxQuestions,
  outcomeOf,
  questionDigest,
  requesterOf,
  rightsForTargets,
  type Answer,
  type Requester,
  type RequesterOutcome,
} from '../guardrails/requester/plan.ts';
import { rightText } from '../guardrails/wording.ts';
import { dropOldest } from '../runtime/bounded-map.ts';
import type { KubeClient } from '../runtime/client.ts';
import { assertAllDone, forEachBounded } from '../runtime/parallel.ts';

/** What is known of who asked for an object. */
export interface RequesterVerdict extends RequesterOutcome {
  /** Digest of the question that was answered; goes into the status. */
  digest: string | undefined;
  /** Milliseconds after which it is asked again. */
  againMs: number | undefined;
}

/** An answer that holds an object. */
interface Held {
  /** Of the question. */
  digest: string;
  outcome: RequesterOutcome;
  /** Milliseconds since the epoch at which it is asked again. */
  until: number;
}

/** Asks the API server whether who asked for an automation is allowed himself what it may do. */
export class RequesterRights {
  readonly #client: Pick<KubeClient, 'create'>;
  readonly #clock: () => number;
  /** By kind, namespace and name: answers that aren't asked for again yet. */
  readonly #held = new Map<string, Held>();

  /** @param clock milliseconds since the epoch */
  constructor(client: Pick<KubeClient, 'create'>, clock: () => number = Date.now) {
    this.#client = client;
    this.#clock = clock;
  }

  /** @param spec `undefined` where it can't be read: that holds by itself */
  async ofWorkflow(
    workflow: Workflow,
    spec: WorkflowSpec | undefined,
    signal: AbortSignal,
  ): Promise<RequesterVerdict> {
    const { namespace = '' } = workflow.metadata;
    const rights = rightsForTargets(namespace, spec?.targets ?? []);
    return this.#verdict(`Workflow ${keyOf(workflow)}`, workflow, rights, signal);
  }

  /** @param spec `undefined` where it can't be read: that holds by itself */
  async ofIdentity(
    identity: AutomationIdentity,
    spec: AutomationIdentitySpec | undefined,
    signal: AbortSignal,
  ): Promise<RequesterVerdict> {
    const { namespace = '' } = identity.metadata;
    // One more than is asked tells that there are too many.
    const rights = questionsOf(namespace, spec?.permissions ?? [], maxQuestions + 1);
    return this.#verdict(`AutomationIdentity ${keyOf(identity)}`, identity, rights, signal);
  }

  async #verdict(
    key: string,
    object: Workflow | AutomationIdentity,
    rights: readonly ResourceAttributes[],
    signal: AbortSignal,
  ): Promise<RequesterVerdict> {
    const requester = requesterOf(object);
    const digest = requester && questionDigest(requester, rights);
    const held = this.#held.get(key);
    if (held !== undefined && held.digest === digest && this.#clock() < held.until) {
      return { ...held.outcome, digest, againMs: held.until - this.#clock() };
    }
    const outcome = outcomeOf(await this.#answer(object, requester, rights, digest ?? '', signal));
    this.#held.delete(key);
    if (outcome.problem === undefined) return { ...outcome, digest, againMs: undefined };
    const againMs = outcome.finding.reason === 'RequesterNotAsked' ? failedMs : refusedMs;
    if (digest !== undefined) {
      this.#held.set(key, { digest, outcome, until: this.#clock() + againMs });
      dropOldest(this.#held, maxHeld);
    }
    return { ...outcome, digest, againMs };
  }

  async #answer(
    { status }: Workflow | AutomationIdentity,
    requester: Requester | undefined,
    rights: readonly ResourceAttributes[],
    digest: string,
    signal: AbortSignal,
  ): Promise<Answer> {
    if (requester === undefined) return { is: 'Unstamped' };
    const condition = knownAnswer(status, digest);
    if (condition !== undefined) return { is: 'Known', condition };
    if (rights.length > maxQuestions) return { is: 'TooMany', requester };
    try {
      const outcomes = await forEachBounded(rights, parallelism, (resourceAttributes) =>
        this.#client.create(
          resources.subjectAccessReviews,
          {
            metadata: { name: '' },
            spec: { user: requester.user, groups: [...requester.groups], resourceAttributes },
          },
          { signal },
        ),
      );
      assertAllDone(outcomes, 'ask what the requester is allowed');
      const missing = outcomes.flatMap((outcome) =>
        'result' in outcome && outcome.result.status?.allowed === true
          ? []
          : [rightText(outcome.item)],
      );
      return { is: 'Asked', requester, missing };
    } catch (error) {
      return { is: 'Failed', error };
    }
  }
}

/** Questions about one object that are under way at a time. */
const parallelism = 4;

/** Time until a refusal is asked about again: a right may be given, and nobody tells. */
const refusedMs = 60_000;
/** Time until a question is put again that nobody answered. */
const failedMs = 10_000;
/** Answers that are remembered; of the oldest beyond, the question is put again at each look. */
const maxHeld = 10_000;
