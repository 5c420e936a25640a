import { setTimeout as delay } from 'node:timers/promises';
import { parseDuration } from '../api/duration.ts';
import type { EvidenceSegment } from '../api/evidence-segment.ts';
import { wholeNamespaceName } from '../api/kill-switch.ts';
import { label } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import type { EvidenceRecord } from '../evidence/record.ts';
import { verifyChain } from '../evidence/verify.ts';
import { UsageError, type Session } from './command.ts';

/** Options of commands that ask the log. */
export const sinceOption = { since: { type: 'string' } } as const;

/**
 * A time on the command line: a duration before now, or RFC 3339.
 *
 * @returns RFC 3339
 * @throws UsageError
 */
export function timeOf(text: string, option: string, now = Date.now()): string {
  const ago = parseDuration(text);
  const at = ago === undefined ? Date.parse(text) : now - ago;
  if (Number.isFinite(at)) return new Date(at).toISOString();
  throw new UsageError(
    `--${option} takes a duration such as 24h, or a time such as 2026-01-31T08:00:00Z`,
  );
}

/** RFC 3339 of `--since`. @throws UsageError */
export function sinceOf(session: Session): string | undefined {
  const text = session.option('since');
  return text === undefined ? undefined : timeOf(text, 'since');
}

/** Between two looks at a chain whose next segment is about to come, in milliseconds, and their number. */
const nextLook = { afterMs: 250, times: 12 };

/**
 * Segments of a Workflow, or of the whole namespace, by chain; those of the namespace's own always.
 * The operator writes the next segment right after it has sealed one: who reads between the two
 * reads again, for a few seconds, before he takes the next one for missing.
 */
export async function segmentsOf(
  { client, namespace }: Pick<Session, 'client' | 'namespace'>,
  workflow: string | undefined,
): Promise<Map<string, EvidenceSegment[]>> {
  const own = [workflow, wholeNamespaceName].join(',');
  const labelSelector = workflow === undefined ? label.chain : `${label.chain} in (${own})`;
  for (let look = 1; ; look++) {
    const segments = await client.list(resources.evidenceSegments, { namespace, labelSelector });
    const chains = Map.groupBy(segments, ({ spec }) => spec.chain);
    if (look >= nextLook.times || ![...chains.values()].some(isBetweenSegments)) return chains;
    await delay(nextLook.afterMs);
  }
}

function isBetweenSegments(segments: readonly EvidenceSegment[]): boolean {
  return segments.every(({ spec }) => spec.sealed);
}

/** Records in the order of time. What doesn't prove itself is said on standard error. */
export async function recordsOf(
  session: Session,
  workflow: string | undefined,
): Promise<EvidenceRecord[]> {
  const chains = await segmentsOf(session, workflow);
  const records = [...chains].flatMap(([chain, segments]) => {
    const proof = verifyChain(
      `${session.namespace}/${chain}`,
      segments.map(({ spec }) => spec),
    );
    for (const { code, message } of proof.problems) session.stderr(`Warning: ${code}: ${message}`);
    return proof.records;
  });
  return records.toSorted((a, b) =>
    a.time < b.time ? -1 : a.time > b.time ? 1 : a.sequence - b.sequence,
  );
}
