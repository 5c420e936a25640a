import { resources } from '../api/resources.ts';
import type { WorkflowRevision } from '../api/workflow-revision.ts';
import { draftOf, referenceTo, unknown, type Place } from './drafts.ts';
import type { Observation } from './observation.ts';

/**
 * Which revision of a Workflow is in force, as long as one is.
 *
 * @param revisions of one Workflow; while one follows on another, both may say that they are
 */
export function revisionFacts(revisions: readonly WorkflowRevision[], place: Place): Observation {
  const [active] = revisions
    .filter(({ status }) => status?.active === true)
    .toSorted((a, b) => b.spec.revision - a.spec.revision);
  if (active === undefined) return { facts: [] };
  const { spec, status } = active;
  const { revision, digest, authenticated, asserted, sameAs } = spec;
  return {
    facts: [
      {
        subject: 'revision/active/',
        state: String(revision),
        draft: (before) =>
          draftOf(place, {
            // The first that is seen may have been in force for long.
            action:
              sameAs !== undefined && before !== undefined
                ? 'RevisionRolledBack'
                : 'RevisionActivated',
            actor:
              authenticated.length === 0
                ? unknown
                : { name: authenticated.slice(0, 5).join(', '), basis: 'authenticated' },
            objects: [referenceTo(resources.workflowRevisions, active)],
            details: {
              revision: String(revision),
              digest,
              ...(before !== undefined && { before }),
              ...(sameAs !== undefined && { sameAs: String(sameAs) }),
              ...(status?.approved !== undefined && {
                approvedBy: status.approved.by.slice(0, 8).join(', '),
              }),
              ...(asserted?.requestedBy !== undefined && { assertedBy: asserted.requestedBy }),
              ...(asserted?.commit !== undefined && { assertedCommit: asserted.commit }),
            },
            ...(asserted?.reason !== undefined && { message: asserted.reason }),
            ...(status?.activated !== undefined && { happened: status.activated }),
          }),
      },
    ],
  };
}
