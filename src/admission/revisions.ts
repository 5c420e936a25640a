import { GROUP } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { isUpdate, mayOnIdentities } from './cel.ts';
import { rule, validating, type AdmissionObject } from './policies.ts';

const { workflowRevisions } = resources;

/**
 * A verb of our own on `workflowrevisions`: `record` writes them, says what became of them, and lets
 * them go (the operator).
 */
export type RevisionVerb = 'record';

const mayRecord = `authorizer.group('${GROUP}').resource('${workflowRevisions.plural}').namespace(request.namespace).check('${'record' satisfies RevisionVerb}').allowed()`;

/**
 * What ran is recorded by the operator alone: by it, people are told from those who may approve.
 * That a revision doesn't change is in its schema. The garbage collector takes those of a Workflow
 * that is gone; a migration of stored versions writes them back as they are.
 */
export function revisionPolicies(): AdmissionObject[] {
  const same = (field: string): string => `dyn(object).?${field} == dyn(oldObject).?${field}`;
  const isUnchanged = [
    same('metadata.?labels'),
    same('metadata.?annotations'),
    same('metadata.?ownerReferences'),
    same('metadata.?finalizers'),
    same('spec'),
    same('status'),
  ].join(' && ');
  const goesWithNamespace =
    "(request.operation == 'DELETE' && namespaceObject.metadata.?deletionTimestamp.hasValue())";
  return validating({
    name: 'revisions',
    description: 'Revisions of Workflows are written by the operator alone.',
    rules: [
      rule(workflowRevisions, ['CREATE', 'UPDATE', 'DELETE']),
      rule(workflowRevisions, ['UPDATE'], 'status'),
    ],
    everywhere: true,
    validations: [
      {
        expression: `(${isUpdate} && ${isUnchanged}) || ${goesWithNamespace} || ${mayRecord} || ${mayOnIdentities('manage-children')}`,
        message:
          'revisions are recorded by the operator alone; to go back to an earlier one: kubectl guardrails rollback NAME --to N',
      },
    ],
  });
}
