import { randomBytes } from 'node:crypto';
import { dump } from 'js-yaml';
import { accessReviewCreationPolicyName } from '../../admission/index.ts';
import { decision as decisions, type AccessReviewSpec } from '../../api/access-review.ts';
import type { AutomationIdentity } from '../../api/automation-identity.ts';
import type { Pod, Role, RoleBinding } from '../../api/objects.ts';
import { conditionOf } from '../../api/conditions.ts';
import { PROBE_NAMESPACE } from '../../api/names.ts';
import { resources } from '../../api/resources.ts';
import { bindingIndexes, projectBinding, projectRole } from '../../guardrails/identity/bindings.ts';
import { canonicalRules } from '../../guardrails/identity/digest.ts';
import { excessOf, type Grant } from '../../guardrails/identity/effective.ts';
import { readSpec } from '../../guardrails/identity/plan.ts';
import { withoutRefused } from '../../guardrails/identity/refused.ts';
import { rulesOf } from '../../guardrails/identity/rules.ts';
import { ObjectStore } from '../../runtime/store.ts';
import {
  exit,
  isForbidden,
  outputOptions,
  reasonOf,
  required,
  UsageError,
  type Command,
  type Session,
} from '../command.ts';
import { print, type Columns } from '../print.ts';
import { reviewReport, reviewText, type ReviewReport } from '../review-report.ts';
import { stamped } from '../stamped.ts';

const form = 'review NAME';
const decisionForm = 'review NAME --decision Keep|Reduce|Revoke --reason TEXT';

/** Shows what an AutomationIdentity may do, and records what a reviewer decides. */
export const reviewCommand: Command = {
  name: 'review',
  usage: [
    ['review', 'when AutomationIdentities were reviewed, overdue ones first'],
    [form, 'what AutomationIdentity NAME may do, has and may reach'],
    [decisionForm, 'record what you decided (not by who changed it last)'],
  ],
  options: {
    ...outputOptions,
    decision: { type: 'string' },
    reason: { type: 'string' },
    'all-namespaces': { type: 'boolean', short: 'A' },
  },
  run: async (session) => {
    const [name] = session.names;
    if (name === undefined && session.option('decision') === undefined) return overview(session);
    if (session.flag('all-namespaces')) throw new UsageError('either NAME or --all-namespaces');
    return review(session, required(name, decisionForm));
  },
};

interface OverviewRow {
  namespace: string;
  name: string;
  /** Whether a review is overdue; empty where none is asked for. */
  overdue: string;
  decision: string;
  by: string;
  reviewed: string;
  due: string;
  message: string;
}

const overviewColumns: Columns<OverviewRow> = {
  NAMESPACE: ({ namespace }) => namespace,
  NAME: ({ name }) => name,
  OVERDUE: ({ overdue }) => overdue,
  DECISION: ({ decision }) => decision,
  BY: ({ by }) => by,
  REVIEWED: ({ reviewed }) => reviewed,
  DUE: ({ due }) => due,
};

async function overview(session: Session): Promise<number> {
  const { client, namespace } = session;
  const scope = session.flag('all-namespaces') ? {} : { namespace };
  const identities = await client.list(resources.automationIdentities, scope);
  const rows = identities
    .filter(({ metadata }) => metadata.namespace !== PROBE_NAMESPACE)
    .map(rowOf)
    .toSorted((a, b) => rankOf(a) - rankOf(b) || a.due.localeCompare(b.due));
  print(session, rows, overviewColumns, 'No AutomationIdentity found.');
  return exit.ok;
}

function rowOf({ metadata, status }: AutomationIdentity): OverviewRow {
  const condition = conditionOf(status?.conditions, 'ReviewOverdue');
  const { decision = '', by = '', lastReviewed = '', due = '' } = status?.accessReview ?? {};
  return {
    namespace: metadata.namespace ?? '',
    name: metadata.name,
    overdue: condition?.status ?? '',
    decision,
    by,
    reviewed: lastReviewed,
    due,
    message: condition?.message ?? '',
  };
}

/** Overdue ones first, those that nobody asks for last. */
function rankOf({ overdue }: OverviewRow): number {
  return overdue === 'True' ? 0 : overdue === '' ? 2 : 1;
}

async function review(session: Session, name: string): Promise<number> {
  const decision = decisionOf(session);
  const reason = decision === undefined ? undefined : reasonOf(session, decisionForm);
  const report = await reportOf(session, name);
  show(session, report);
  if (decision === undefined || reason === undefined) return exit.ok;
  const { digest, state } = report;
  // A revocation stands whatever changes, and needs no operator.
  if (digest === undefined || (decision !== 'Revoke' && state !== 'Current')) {
    session.stderr(
      state === 'Stale'
        ? `Error: what ${name} may do has just changed, and the operator hasn't seen it yet: look again.`
        : `Error: the operator has published no digest of what ${name} may do: set spec.accessReview.every on it.`,
    );
    return exit.failed;
  }
  await record(session, { identity: name, decision, reason, digest });
  session.stdout(`Recorded: ${decision} for ${report.identity}.`);
  return exit.ok;
}

function decisionOf(session: Session): AccessReviewSpec['decision'] | undefined {
  const text = session.option('decision');
  if (text === undefined) return undefined;
  const { success, data } = decisions.safeParse(text);
  if (!success) throw new UsageError('--decision takes Keep, Reduce or Revoke');
  return data;
}

async function reportOf(session: Session, name: string): Promise<ReviewReport> {
  const { client, namespace } = session;
  const identity = await client.get(resources.automationIdentities, { namespace, name });
  if (identity === undefined) {
    throw new Error(`There is no AutomationIdentity ${name} in namespace ${namespace}.`);
  }
  const read = readSpec(identity);
  if ('malformed' in read) throw new Error(`Can't be read: ${read.malformed}.`);
  const [beyond, workflow, all] = await Promise.all([
    grantedByOthers(session, identity),
    client.get(resources.workflows, { namespace, name }),
    client.list(resources.accessReviews, { namespace }),
  ]);
  const pods = await podsOf(session, name);
  const reviews = all.filter(({ spec }) => spec.identity === name);
  return reviewReport({ identity, beyond, workflow, reviews, pods, now: Date.now() });
}

/** `undefined` where the user may not list pods. */
async function podsOf(
  { client, namespace }: Session,
  name: string,
): Promise<readonly Pod[] | undefined> {
  try {
    const fieldSelector = `spec.serviceAccountName=${name}`;
    return await client.list(resources.pods, { namespace, fieldSelector });
  } catch (error) {
    if (isForbidden(error)) return undefined;
    throw error;
  }
}

/** By the user's own rights; `undefined` where he may not list what grants. */
async function grantedByOthers(
  { client }: Session,
  identity: AutomationIdentity,
): Promise<readonly Grant[] | undefined> {
  const stores = {
    roles: new ObjectStore<Role>(),
    roleBindings: new ObjectStore<RoleBinding>(bindingIndexes),
    clusterRoles: new ObjectStore<Role>(),
    clusterRoleBindings: new ObjectStore<RoleBinding>(bindingIndexes),
  };
  try {
    for (const kind of ['roles', 'clusterRoles'] as const) {
      for (const role of await client.list(resources[kind])) stores[kind].set(projectRole(role));
    }
    for (const kind of ['roleBindings', 'clusterRoleBindings'] as const) {
      const found = await client.list(resources[kind]);
      for (const binding of found) stores[kind].set(projectBinding(binding));
    }
  } catch (error) {
    if (isForbidden(error)) return undefined;
    throw error;
  }
  const { permissions } = withoutRefused(identity.spec.permissions ?? [], identity.metadata.name);
  return excessOf(identity, canonicalRules(rulesOf(permissions)), stores);
}

function show({ output, stdout }: Session, report: ReviewReport): void {
  if (output === 'json') stdout(JSON.stringify(report, undefined, 2));
  else if (output === 'yaml') stdout(dump(report).trimEnd());
  else for (const line of reviewText(report)) stdout(line);
}

async function record(
  { client, namespace }: Session,
  spec: Omit<AccessReviewSpec, 'reviewer'>,
): Promise<void> {
  const name = `${spec.identity}-${randomBytes(4).toString('hex')}`;
  await stamped(client, accessReviewCreationPolicyName, (reviewer) =>
    client.create(resources.accessReviews, {
      metadata: { namespace, name },
      spec: { ...spec, ...(reviewer !== undefined && { reviewer }) },
    }),
  );
}
