import { GROUP, label, MANAGED_BY } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { labelOf, mayOnIdentities } from './cel.ts';
import { rule, validating, type AdmissionObject, type Operation } from './policies.ts';

const operations: Operation[] = ['CREATE', 'UPDATE', 'DELETE'];

/** Everything that a write of these kinds can change, other than what the API server keeps. */
const metadataFields = ['labels', 'annotations', 'ownerReferences', 'finalizers'];
const bodyFields = [
  'automountServiceAccountToken',
  'data',
  'imagePullSecrets',
  'immutable',
  'roleRef',
  'rules',
  'secrets',
  'spec',
  'subjects',
  'type',
];

/** What others may write on a ServiceAccount: what clouds and registries need there. */
const openOnServiceAccounts: ReadonlySet<string> = new Set(['annotations', 'imagePullSecrets']);

/**
 * What the operator created is written by the operator alone, and by who holds `manage-children`:
 * the garbage collector, by a binding of the installation. What stands already may be written back
 * as it is, as the migration of stored versions does.
 */
export function childrenPolicies(): AdmissionObject[] {
  const same = (field: string): string => `dyn(object).?${field} == dyn(oldObject).?${field}`;
  const fields = [...metadataFields.map((field) => `metadata.?${field}`), ...bodyFields];
  const isOpen = (field: string): boolean =>
    openOnServiceAccounts.has(field.replace('metadata.?', ''));
  const ownAnnotations = (of: string): string => `${of}.metadata.?annotations.orValue({})`;
  const sameAnnotation = `!k.startsWith('${GROUP}/') || ${ownAnnotations('object')}[?k] == ${ownAnnotations('oldObject')}[?k]`;
  const isServiceAccount = `request.resource.resource == '${resources.serviceAccounts.plural}'`;
  const allowed: Record<Operation, string> = {
    CREATE: 'false',
    UPDATE: [
      ...fields.filter((field) => !isOpen(field)).map(same),
      `(${fields.filter(isOpen).map(same).join(' && ')} || (${isServiceAccount} && ${['object', 'oldObject'].map((of) => `${ownAnnotations(of)}.all(k, ${sameAnnotation})`).join(' && ')}))`,
    ].join(' && '),
    DELETE: 'namespaceObject.metadata.?deletionTimestamp.hasValue()',
  };
  const { identity, workflow } = label;
  return validating({
    name: 'children',
    description: 'What the operator created is changed and deleted by the operator alone.',
    rules: [
      resources.serviceAccounts,
      resources.secrets,
      resources.roles,
      resources.roleBindings,
      resources.networkPolicies,
    ].map((resource) => rule(resource, operations)),
    objectSelector: { matchLabels: { [label.managedBy]: MANAGED_BY } },
    variables: {
      wasOurs: `request.operation != 'CREATE' && ${labelOf('oldObject', label.managedBy)} == '${MANAGED_BY}'`,
      owner: `${labelOf('oldObject', identity)} != '' ? 'aid ' + ${labelOf('oldObject', identity)} : 'awf ' + ${labelOf('oldObject', workflow)}`,
      allowed: `request.operation == 'UPDATE' ? (${allowed.UPDATE}) : request.operation == 'DELETE' ? ${allowed.DELETE} : ${allowed.CREATE}`,
    },
    validations: [
      {
        expression: `variables.allowed || ${mayOnIdentities('manage-children')}`,
        message: `what carries the label ${label.managedBy}: ${MANAGED_BY} is written by the operator alone`,
        messageExpression: `variables.wasOurs ? 'the operator made this and keeps it as it is; change what it is made from instead: kubectl edit ' + variables.owner + ' -n ' + request.namespace : 'the label ${label.managedBy}: ${MANAGED_BY} is for what the operator creates: leave it out'`,
      },
    ],
  });
}
