import { GROUP, label, MANAGED_BY } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { areSame, isUpdate, labelOf, mayOnIdentities } from './cel.ts';
import { rule, validating, type AdmissionObject, type Operation } from './policies.ts';

const operations: Operation[] = ['CREATE', 'UPDATE', 'DELETE'];

/** What a write of these kinds can change, other than what the API server keeps by itself. */
const closedFields = [
  'metadata.?labels',
  'metadata.?ownerReferences',
  'metadata.?finalizers',
  'automountServiceAccountToken',
  'data',
  'immutable',
  'roleRef',
  'rules',
  'secrets',
  'spec',
  'subjects',
  'type',
];

/** The rest of it, which others may write on a ServiceAccount: clouds and registries need it there. */
const openFields = ['metadata.?annotations', 'imagePullSecrets'];

/** What holds for what the operator creates, and for what it creates that for. */
export function childrenPolicies(): AdmissionObject[] {
  return [...keepChildren(), ...keepParents()];
}

/**
 * What the operator created is written by the operator alone, and by who holds `manage-children`:
 * the garbage collector, by a binding of the installation. What stands already may be written back
 * as it is, as the migration of stored versions does.
 */
function keepChildren(): AdmissionObject[] {
  const annotations = (of: string): string => `${of}.metadata.?annotations.orValue({})`;
  const isKept = `!k.startsWith('${GROUP}/') || ${annotations('object')}[?k] == ${annotations('oldObject')}[?k]`;
  const areOursKept = ['object', 'oldObject']
    .map((of) => `${annotations(of)}.all(k, ${isKept})`)
    .join(' && ');
  const isServiceAccount = `request.resource.resource == '${resources.serviceAccounts.plural}'`;
  const allowedUpdate = `${areSame(closedFields)} && (${isServiceAccount} ? ${areOursKept} : ${areSame(openFields)})`;
  const allowedDelete = 'namespaceObject.metadata.?deletionTimestamp.hasValue()';
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
      resources.ciliumNetworkPolicies,
      resources.jobs,
    ].map((resource) => rule(resource, operations)),
    objectSelector: { matchLabels: { [label.managedBy]: MANAGED_BY } },
    variables: {
      wasOurs: `request.operation != 'CREATE' && ${labelOf('oldObject', label.managedBy)} == '${MANAGED_BY}'`,
      owner: `${labelOf('oldObject', identity)} != '' ? 'aid ' + ${labelOf('oldObject', identity)} : 'awf ' + ${labelOf('oldObject', workflow)}`,
      allowed: `${isUpdate} ? (${allowedUpdate}) : request.operation == 'DELETE' && ${allowedDelete}`,
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

/**
 * What is deleted with the policy `Orphan` leaves behind what was made for it, and nobody's: no kill
 * would find those permissions and Secrets any more.
 */
function keepParents(): AdmissionObject[] {
  const orphans = (of: string): string => `'orphan' in ${of}.metadata.?finalizers.orValue([])`;
  const asks = `(request.options.?propagationPolicy.orValue('') == 'Orphan' || request.options.?orphanDependents.orValue(false))`;
  return validating({
    name: 'children-go',
    description: 'What the operator created goes together with what it was created for.',
    rules: [resources.workflows, resources.automationIdentities].map((resource) =>
      rule(resource, operations),
    ),
    everywhere: true,
    validations: [
      {
        expression: `request.operation == 'DELETE' ? !${asks} : !(${orphans('object')}) || (${isUpdate} && ${orphans('oldObject')})`,
        message:
          'it is not deleted without what the operator made for it, which no kill switch would find any more: leave --cascade=orphan and the finalizer orphan out',
      },
      {
        // One that is kept half-way through its deletion is looked at by nobody, and keeps what it has.
        expression: `request.operation == 'DELETE' || object.metadata.?finalizers.orValue([]).all(f, f in ['foregroundDeletion', 'orphan'] || (${isUpdate} && f in oldObject.metadata.?finalizers.orValue([])))`,
        message:
          'a finalizer would keep it half-way through its deletion, with all that was granted to it: leave finalizers out',
      },
    ],
  });
}
