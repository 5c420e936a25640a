import type { Approval } from '../api/approval.ts';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import { splitKey, stampOf, type KubeObject, type Namespace } from '../api/objects.ts';
import { resources, subjectOf } from '../api/resources.ts';
import type { Workflow } from '../api/workflow.ts';
import type { WorkflowRevision } from '../api/workflow-revision.ts';
import {
  podTemplateOf,
  projectWorkload,
  workloadResources,
  type Workload,
} from '../api/workload.ts';
import { revisionOf, type Revision } from '../guardrails/approval/plan.ts';
import {
  isNew,
  newestFirst,
  outlived,
  revisionAfter,
  sourceOf,
  statusesOf,
} from '../guardrails/revisions/plan.ts';
import { isGuarded } from '../guardrails/requirements.ts';
import { some } from '../guardrails/wording.ts';
import type { EventRecorder } from '../observability/events.ts';
import type { KubeClient } from '../runtime/client.ts';
import type { ReconcileContext, Reconciler, ReconcileResult } from '../runtime/controller.ts';
import { isAlreadyExists } from '../runtime/errors.ts';
import type { IndexedStore } from '../runtime/merged-store.ts';
import { assertAllDone, forEachBounded } from '../runtime/parallel.ts';
import type { StatusWriter } from '../runtime/status-writer.ts';
import type { ReadStore } from '../runtime/store.ts';
import type { WorkflowApprovals } from './workflow-approval.ts';
import { idOf, readSpec, resolveTargets } from './workflow-targets.ts';

export interface RevisionControllerOptions {
  /** Writes only while this process leads. */
  client: Pick<KubeClient, 'get' | 'create' | 'delete'>;
  statusWriter: Pick<StatusWriter, 'write'>;
  events: Pick<EventRecorder, 'normal'>;
  state: Pick<WorkflowApprovals, 'of'>;
  workflows: Pick<ReadStore<Workflow>, 'get'>;
  identities: Pick<ReadStore<AutomationIdentity>, 'get'>;
  namespaces: Pick<ReadStore<Namespace>, 'get'>;
  /** Indexed by `workflow` (`namespace/name`). */
  revisions: Pick<ReadStore<WorkflowRevision>, 'byIndex'>;
  /** Indexed by `workflow` (`namespace/name`). */
  approvals: Pick<ReadStore<Approval>, 'byIndex'>;
  /** Indexed by `namespace`. */
  workloads: IndexedStore<Workload>;
  /** Revisions of each Workflow that are kept. */
  limit: number;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/** Requests of one look that are under way at a time. */
const parallelism = 4;

/** After which what the cache hasn't seen yet is looked at again. */
const againMs = 1_000;

/**
 * Records each change of what runs of a Workflow, says which revision is in force, and lets go those
 * that nobody needs. It goes by what stands: what it did not do before a crash, it finds again.
 *
 * It must not run before the caches have synced.
 */
export class RevisionController implements Reconciler {
  readonly name = 'revisions';
  readonly #options: RevisionControllerOptions;

  constructor(options: RevisionControllerOptions) {
    this.#options = options;
  }

  async reconcile(key: string, context: ReconcileContext): Promise<ReconcileResult> {
    const { workflows, namespaces, revisions } = this.#options;
    const workflow = workflows.get(key);
    const namespace = namespaces.get(splitKey(key).namespace ?? '');
    if (workflow === undefined || workflow.metadata.deletionTimestamp !== undefined) return {};
    if (!isGuarded(namespace) || namespace?.metadata.deletionTimestamp !== undefined) return {};
    const seen = this.#look(key, workflow);
    if (seen === undefined) return {};
    const recorded = revisions.byIndex('workflow', key);
    const [newest] = newestFirst(recorded);
    const needsApproval = (this.#options.state.of(key)?.required ?? 0) > 0;
    const isUnrecorded = isNew(newest, seen.revision, needsApproval);
    // First: whether the one before was approved says who may approve the next.
    const unrecorded = isUnrecorded ? seen.revision.digest : undefined;
    if (await this.#mark(key, newest, unrecorded, recorded, context)) return {};
    if (isUnrecorded) {
      return await this.#record(seen, recorded, context);
    }
    await this.#letGo(key, recorded, context);
    return {};
  }

  #look(key: string, workflow: Workflow): Seen | undefined {
    const { identities, workloads } = this.#options;
    const read = readSpec(workflow);
    // Its condition says so. What it ran before stays the newest revision.
    if (!('spec' in read)) return undefined;
    const neighbours = workloads.byIndex('namespace', workflow.metadata.namespace ?? '');
    const targets = resolveTargets(workflow, read.spec.targets, neighbours).workloads;
    const identity = identities.get(key);
    return { workflow, identity, targets, revision: revisionOf(workflow, identity, targets) };
  }

  /** @returns whether anything was written: the change brings the key back */
  async #mark(
    key: string,
    newest: WorkflowRevision | undefined,
    unrecorded: string | undefined,
    recorded: readonly WorkflowRevision[],
    { signal }: ReconcileContext,
  ): Promise<boolean> {
    const { state, statusWriter, clock } = this.#options;
    const known = state.of(key);
    if (known === undefined) return false;
    const { mayStart, inForce } = known;
    const digest = unrecorded ?? newest?.spec.digest;
    const isInForce = mayStart === 'everything' && digest !== undefined;
    const of = isInForce ? { digest, approvedBy: undefined } : inForce;
    // What is put back gets a revision of its own: the former one of that digest stays as it is.
    if (unrecorded !== undefined && of?.digest === unrecorded) return false;
    const changed = statusesOf(recorded, of, clock());
    for (const { revision, status } of changed) {
      await statusWriter.write(resources.workflowRevisions, revision, status, signal);
    }
    return changed.length > 0;
  }

  async #record(
    { workflow, identity, targets, revision }: Seen,
    recorded: readonly WorkflowRevision[],
    { signal, log }: ReconcileContext,
  ): Promise<ReconcileResult> {
    const { client, events, revisions } = this.#options;
    const templates = await this.#templates(targets, signal);
    // Somebody changes it right now: what comes of it is seen in a moment.
    if (templates === undefined) return { requeueAfterMs: againMs };
    const stamped: [string, Pick<KubeObject, 'metadata'> | undefined][] = [
      ['Workflow', workflow],
      ['AutomationIdentity', identity],
      ...targets.map((target): [string, Workload] => [idOf(target), target]),
    ];
    const from = sourceOf(workflow);
    const next = revisionAfter(recorded, {
      workflow,
      ...(from !== undefined && {
        source: revisions.byIndex('workflow', `${from}/${workflow.metadata.name}`),
      }),
      digest: revision.digest,
      parts: revision.parts,
      stamps: new Map(
        stamped.flatMap(([name, object]): [string, string][] => {
          const stamp = object && stampOf(object);
          return stamp === undefined ? [] : [[name, stamp]];
        }),
      ),
      contents: new Map<string, unknown>([
        ['Workflow', workflow.spec],
        ...(identity === undefined
          ? []
          : [['AutomationIdentity', identity.spec] satisfies [string, unknown]]),
        ...templates,
      ]),
    });
    try {
      await client.create(resources.workflowRevisions, next, { signal });
    } catch (error) {
      // It was recorded already, and isn't in the cache yet; or it is of a Workflow that is gone.
      if (isAlreadyExists(error)) return { requeueAfterMs: againMs };
      throw error;
    }
    log.info('Revision recorded', { revision: next.spec.revision, digest: next.spec.digest });
    events.normal(subjectOf(resources.workflows, workflow), 'RevisionRecorded', wordsOf(next.spec));
    return {};
  }

  /** @returns by the names of their parts; `undefined` where one isn't what the cache has */
  async #templates(
    targets: readonly Workload[],
    signal: AbortSignal,
  ): Promise<[string, unknown][] | undefined> {
    const { client } = this.#options;
    const outcomes = await forEachBounded(
      targets,
      parallelism,
      async (target): Promise<[string, unknown] | undefined> => {
        const { namespace, name } = target.metadata;
        const object = await client.get(
          workloadResources[target.kind],
          { namespace, name },
          { signal },
        );
        if (object === undefined) return undefined;
        if (projectWorkload(target.kind, object).codeDigest !== target.codeDigest) return undefined;
        return [idOf(target), podTemplateOf(object)];
      },
    );
    assertAllDone(outcomes, 'read what is recorded');
    const found = outcomes.flatMap((outcome) =>
      'result' in outcome && outcome.result !== undefined ? [outcome.result] : [],
    );
    return found.length === targets.length ? found : undefined;
  }

  async #letGo(
    key: string,
    recorded: readonly WorkflowRevision[],
    { signal }: ReconcileContext,
  ): Promise<void> {
    const { client, approvals, limit } = this.#options;
    const decided = new Set(approvals.byIndex('workflow', key).map(({ spec }) => spec.digest));
    const outcomes = await forEachBounded(
      outlived(recorded, limit, decided),
      parallelism,
      ({ metadata: { namespace = '', name, uid } }) =>
        client.delete(
          resources.workflowRevisions,
          { namespace, name },
          { ...(uid !== undefined && { uid }), signal },
        ),
    );
    assertAllDone(outcomes, 'delete revisions that nobody needs');
  }
}

/** What runs of a Workflow now. */
interface Seen {
  workflow: Workflow;
  identity: AutomationIdentity | undefined;
  targets: readonly Workload[];
  revision: Revision;
}

function wordsOf(spec: WorkflowRevision['spec']): string {
  const { revision, authenticated, asserted, sameAs, promotedFrom } = spec;
  const by = authenticated.length === 0 ? 'nobody known' : some(authenticated);
  const why = asserted?.reason === undefined ? '' : `: ${asserted.reason}`;
  const back = sameAs === undefined ? '' : `, the same as revision ${sameAs}`;
  const from =
    promotedFrom === undefined
      ? ''
      : `, the same as revision ${promotedFrom.revision} in ${promotedFrom.namespace}`;
  return `Revision ${revision}${back}${from}, changed by ${by}${why}`;
}
