import { timestamp } from '../../api/conditions.ts';
import { annotation, API_VERSION, label } from '../../api/names.ts';
import { bareMetadata, type KubeObject } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { RevisionPart, Workflow } from '../../api/workflow.ts';
import {
  maxChangers,
  revisionName,
  type RecordedPart,
  type WorkflowRevision,
  type WorkflowRevisionStatus,
} from '../../api/workflow-revision.ts';
import { redactText } from '../../observability/redact.ts';
import { fieldOf } from '../requirements.ts';
import { contentOf } from './content.ts';

/** Characters of all parts of a revision together: an object of the API has a bound. */
const maxContents = 393_216;

/** The newest first. */
export function newestFirst(revisions: readonly WorkflowRevision[]): WorkflowRevision[] {
  return revisions.toSorted((a, b) => b.spec.revision - a.spec.revision);
}

/** What stands now, to be recorded. */
export interface Standing {
  workflow: Workflow;
  digest: string;
  parts: readonly RevisionPart[];
  /** By the name of the part: whose stamp it carries. */
  stamps: ReadonlyMap<string, string>;
  /** By the name of the part: its spec or pod template. */
  contents: ReadonlyMap<string, unknown>;
  /** What is recorded in the namespace that it was promoted from, as the Workflow says. */
  source?: readonly WorkflowRevision[];
}

/** Namespace that a Workflow says that it was promoted from. */
export function sourceOf({ metadata }: Workflow): string | undefined {
  const { namespace, annotations } = metadata;
  const source = annotations?.[annotation.promotedFrom];
  return source === namespace ? undefined : source;
}

/**
 * Whether what stands is another revision than the newest one that is recorded. Of an automation
 * that needs no approval, Jobs that come and go are its runs, and no change of it.
 */
export function isNew(
  newest: WorkflowRevision | undefined,
  { digest, parts }: Pick<Standing, 'digest' | 'parts'>,
  needsApproval: boolean,
): boolean {
  if (newest === undefined) return true;
  if (newest.spec.digest === digest) return false;
  return needsApproval || withoutJobs(newest.spec.parts) !== withoutJobs(parts);
}

function withoutJobs(parts: readonly RevisionPart[]): string {
  return parts
    .filter(({ name }) => !name.startsWith('Job '))
    .map(({ name, digest }) => `${name} ${digest}`)
    .join('\n');
}

/**
 * The revision that records what stands. Its name is its number, so that of two writers, or of one
 * that writes again after a crash, one is refused.
 *
 * @param recorded all that are known of the Workflow
 */
export function revisionAfter(
  recorded: readonly WorkflowRevision[],
  standing: Standing,
): WorkflowRevision {
  const { workflow, digest } = standing;
  const { name, namespace = '', uid = '' } = workflow.metadata;
  const ordered = newestFirst(recorded);
  const newest = ordered[0];
  const revision = (newest?.spec.revision ?? 0) + 1;
  const parts = recordedParts(standing);
  const before = new Map(newest?.spec.parts.map((part) => [part.name, part]));
  const differing = parts.filter((part) => before.get(part.name)?.digest !== part.digest);
  const authenticated = unique(differing.flatMap(({ changedBy }) => changedBy ?? []));
  const asserted = assertedOf(workflow);
  const { barred, isBack } = barredFrom(recorded, digest, approvedDigestOf(workflow));
  // What is put back is what it was, whoever does that.
  const changers = isBack
    ? barred
    : unique([
        ...barred,
        ...authenticated,
        ...(asserted?.requestedBy === undefined ? [] : [asserted.requestedBy]),
      ]);
  const same = ordered.find(({ spec }) => spec.digest === digest);
  return {
    metadata: {
      namespace,
      name: revisionName(name, revision),
      labels: { [label.workflow]: name },
      ownerReferences: [
        {
          apiVersion: API_VERSION,
          kind: resources.workflows.kind,
          name,
          uid,
          controller: true,
        },
      ],
    },
    spec: {
      workflow: name,
      revision,
      digest,
      authenticated: authenticated.slice(0, maxChangers),
      ...(asserted !== undefined && { asserted }),
      changers: changers.slice(0, maxChangers),
      ...(same !== undefined && { sameAs: same.spec.revision }),
      ...promotion(standing),
      parts,
    },
  };
}

/** The Workflow says where it comes from, and what is recorded there says whether that is so. */
function promotion({
  digest,
  source = [],
}: Standing): Pick<WorkflowRevision['spec'], 'promotedFrom'> {
  const ran = newestFirst(source).find(
    ({ spec, status }) => spec.digest === digest && status?.activated !== undefined,
  );
  const namespace = ran?.metadata.namespace;
  if (ran === undefined || namespace === undefined) return {};
  return { promotedFrom: { namespace, revision: ran.spec.revision } };
}

/** In the order of their names, as many with their contents as there is room for. */
function recordedParts({ parts, stamps, contents }: Standing): RecordedPart[] {
  let room = maxContents;
  return parts.map(({ name, digest }): RecordedPart => {
    const changedBy = stamps.get(name);
    const { text, redacted } = contents.has(name)
      ? contentOf(contents.get(name))
      : { text: undefined, redacted: [] };
    const fits = text !== undefined && text.length <= room;
    if (fits) room -= text.length;
    return {
      name,
      digest,
      ...(changedBy !== undefined && { changedBy }),
      ...(fits && { content: text }),
      ...(fits && redacted.length > 0 && { redacted: [...redacted] }),
    };
  });
}

function assertedOf({ spec }: Workflow): WorkflowRevision['spec']['asserted'] {
  const change: unknown = fieldOf(spec, 'change');
  const told = (['requestedBy', 'version', 'reason', 'ticket', 'commit'] as const).flatMap(
    (field): [string, string][] => {
      const value = fieldOf(change, field);
      return typeof value === 'string' ? [[field, redactText(value)]] : [];
    },
  );
  return told.length === 0 ? undefined : Object.fromEntries(told);
}

/** Who can't approve a digest, as far as that is recorded. */
export interface Barred {
  barred: readonly string[];
  /** It is what was approved last: who put it back doesn't matter, and its own changers do. */
  isBack: boolean;
  /** More people changed it than are named, so that nobody can be told from them. */
  isCrowded: boolean;
}

/**
 * All who changed something since what was approved last, and all who had a part in an earlier
 * revision of the same digest.
 *
 * @param recorded all that are known of the Workflow
 * @param approvedDigest what was approved last, by the Workflow's status
 */
export function barredFrom(
  recorded: readonly WorkflowRevision[],
  digest: string,
  approvedDigest: string | undefined,
): Barred {
  const ordered = newestFirst(recorded);
  const lastApproved = ordered.find(isApproved);
  const isBack = lastApproved?.spec.digest === digest && approvedDigest === digest;
  const [newest] = ordered;
  const since = newest === undefined || isApproved(newest) ? [] : newest.spec.changers;
  const same = ordered.find(({ spec }) => spec.digest === digest)?.spec.changers ?? [];
  const barred = isBack ? lastApproved.spec.changers : unique([...since, ...same]);
  return { barred, isBack, isCrowded: !isBack && barred.length >= maxChangers };
}

function isApproved({ status }: WorkflowRevision): boolean {
  return status?.approved !== undefined;
}

/** Digest of what was approved last, as the Workflow's status has it. */
export function approvedDigestOf({ status }: Workflow): string | undefined {
  return status?.revision?.approved?.digest;
}

/** What may start. */
export interface InForce {
  /** Digest of what may start. */
  digest: string;
  /** Who approved that; `undefined` where nobody has to. */
  approvedBy: readonly string[] | undefined;
}

/**
 * The status of each revision, where it isn't what it was. The one that comes into force is first,
 * so that after a crash between the two there is one too many rather than none.
 *
 * @param recorded all that are known of the Workflow
 * @param now milliseconds since the epoch
 */
export function statusesOf(
  recorded: readonly WorkflowRevision[],
  inForce: InForce | undefined,
  now: number,
): { revision: WorkflowRevision; status: WorkflowRevisionStatus }[] {
  const ordered = newestFirst(recorded);
  const active = ordered.find(({ spec }) => spec.digest === inForce?.digest);
  const approvedBy = inForce?.approvedBy;
  return ordered
    .flatMap((revision) => {
      const { active: was = false, activated, approved } = revision.status ?? {};
      const is = revision === active;
      const time = timestamp(now);
      const isApprovedNow = is && approvedBy !== undefined;
      const status: WorkflowRevisionStatus = {
        active: is,
        ...(is && !was ? { activated: time } : activated !== undefined && { activated }),
        ...(approved !== undefined
          ? { approved }
          : isApprovedNow && { approved: { time, by: approvedBy.slice(0, maxChangers) } }),
      };
      const isSame =
        revision.status?.active === is &&
        (status.approved === undefined) === (approved === undefined);
      return isSame ? [] : [{ revision, status }];
    })
    .toSorted((a, b) => Number(b.status.active) - Number(a.status.active));
}

/**
 * Revisions that nobody needs any more: all but the newest ones, what is in force, what was approved
 * last, and what somebody has decided on.
 *
 * @param recorded all that are known of the Workflow
 * @param limit how many are kept
 * @param decided digests of which there are approvals
 */
export function outlived(
  recorded: readonly WorkflowRevision[],
  limit: number,
  decided: ReadonlySet<string>,
): WorkflowRevision[] {
  const ordered = newestFirst(recorded);
  const lastApproved = ordered.find(isApproved);
  const since = lastApproved?.spec.revision ?? 0;
  return ordered
    .slice(limit)
    .filter(
      (revision) =>
        revision.metadata.deletionTimestamp === undefined &&
        revision.status?.active !== true &&
        revision !== lastApproved &&
        !(revision.spec.revision > since && decided.has(revision.spec.digest)),
    );
}

function unique(names: readonly string[]): string[] {
  return [...new Set(names)].toSorted();
}

/** As much of a revision as is cached: what it consists of is long, and read when it is asked for. */
export function projectRevision(object: KubeObject): WorkflowRevision {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- by the schema of its kind
  const { metadata, spec, status } = object as WorkflowRevision;
  return {
    metadata: bareMetadata(metadata),
    spec: {
      ...spec,
      parts: spec.parts.map((part) => {
        const { content: _, ...rest } = part;
        return rest;
      }),
    },
    ...(status !== undefined && { status }),
  };
}
