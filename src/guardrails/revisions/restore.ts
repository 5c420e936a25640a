import type { RecordedPart, WorkflowRevision } from '../../api/workflow-revision.ts';

/** One part that is written back. */
export interface Restored {
  /** `Workflow`, `AutomationIdentity`, or kind and name of a target. */
  part: string;
  value: object;
}

/** How what stands becomes what an earlier revision was. */
export interface RestorePlan {
  /** In the order in which it is written: what pods run is last. */
  writes: readonly Restored[];
  /** Sentences: why it can't be written back. Nothing is, while there are any. */
  obstacles: readonly string[];
  /** Sentences: what will differ all the same. */
  notes: readonly string[];
}

/** @param standing the parts of now */
export function restorePlan(
  { spec }: Pick<WorkflowRevision, 'spec'>,
  standing: readonly Pick<RecordedPart, 'name' | 'digest'>[],
): RestorePlan {
  const now = new Map(standing.map(({ name, digest }) => [name, digest]));
  const recorded = new Set(spec.parts.map(({ name }) => name));
  const differing = spec.parts.filter(({ name, digest }) => now.get(name) !== digest);
  const found = differing.map((part) => ({ part, value: valueOf(part) }));
  const writes = found.flatMap(({ part: { name }, value }) =>
    typeof value === 'string' ? [] : [{ part: name, value }],
  );
  const gone = differing
    .filter(({ name }) => !now.has(name))
    .map(({ name }) => `${name} is gone: create it again first.`);
  const jobs = differing
    .filter(({ name }) => name.startsWith('Job ') && now.has(name))
    .map(({ name }) => `${name} can't be changed: a Job is deleted, and created anew.`);
  const more = standing
    .filter(({ name }) => !recorded.has(name))
    .map(({ name }) => `${name} wasn't a part of revision ${spec.revision}.`);
  return {
    writes: writes.toSorted((a, b) => rank(a) - rank(b)),
    obstacles: [
      ...found.flatMap(({ value }) => (typeof value === 'string' ? [value] : [])),
      ...gone,
      ...jobs,
    ],
    notes: more,
  };
}

const order = ['AutomationIdentity', 'Workflow'];

function rank({ part }: Restored): number {
  const place = order.indexOf(part);
  return place === -1 ? order.length : place;
}

/** @returns a sentence where it isn't known whole */
function valueOf({ name, content, redacted = [] }: RecordedPart): object | string {
  if (content === undefined) return `${name} was too long to be kept: write it back from Git.`;
  if (redacted.length > 0) {
    return `${name} is kept without ${redacted.join(', ')}, which may be secret: write it back from Git.`;
  }
  try {
    const value: unknown = JSON.parse(content);
    if (typeof value === 'object' && value !== null) return value;
  } catch {
    // Said below.
  }
  return `${name} can't be read.`;
}
