import type { AutomationIdentity, AutomationIdentitySpec } from '../api/automation-identity.ts';
import type { ResourceAttributes } from '../api/objects.ts';
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
import type { KubeClient } from '../runtime/client.ts';
import { assertAllDone, forEachBounded } from '../runtime/parallel.ts';

/** What is known of who asked for an object. */
export interface RequesterVerdict extends RequesterOutcome {
  /** Digest of the question that was answered; goes into the status. */
  digest: string | undefined;
  /** Milliseconds after which it is asked again. */
  againMs: number | undefined;
}

/** Asks the API server whether who asked for an automation is allowed himself what it may do. */
export class RequesterRights {
  readonly #client: Pick<KubeClient, 'create'>;

  constructor(client: Pick<KubeClient, 'create'>) {
    this.#client = client;
  }

  /** @param spec `undefined` where it can't be read: that holds by itself */
  async ofWorkflow(
    workflow: Workflow,
    spec: WorkflowSpec | undefined,
    signal: AbortSignal,
  ): Promise<RequesterVerdict> {
    const { namespace = '' } = workflow.metadata;
    return this.#verdict(workflow, rightsForTargets(namespace, spec?.targets ?? []), signal);
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
    return this.#verdict(identity, rights, signal);
  }

  async #verdict(
    object: Workflow | AutomationIdentity,
    rights: readonly ResourceAttributes[],
    signal: AbortSignal,
  ): Promise<RequesterVerdict> {
    const requester = requesterOf(object);
    const digest = requester && questionDigest(requester, rights);
    const answer = await this.#answer(object, requester, rights, digest ?? '', signal);
    const outcome = outcomeOf(answer);
    return { ...outcome, digest, againMs: outcome.problem === undefined ? undefined : againMs };
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

/** A right that was missing may be given, and nobody tells. */
const againMs = 60_000;
