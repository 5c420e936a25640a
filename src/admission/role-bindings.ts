import { label, MANAGED_BY } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { isManaged, isUpdate } from './cel.ts';
import { rule, validating, type AdmissionObject } from './policies.ts';

/** Groups that every ServiceAccount of the request's namespace belongs to. */
const groups = `['system:serviceaccounts', 'system:authenticated', 'system:serviceaccounts:' + request.namespace]`;

function subjects(of: 'object' | 'oldObject'): string {
  return `${of}.?subjects.orValue([])`;
}

function reachesAll(of: 'object' | 'oldObject'): string {
  return `${subjects(of)}.exists(s, s.kind == 'Group' && s.name in ${groups})`;
}

/** A ServiceAccount without a namespace is one of the binding's. */
function reachesOne(of: 'object' | 'oldObject'): string {
  return `${subjects(of)}.exists(s, (s.kind == 'ServiceAccount' && s.name == params.metadata.name && s.?namespace.orValue('') in ['', request.namespace]) || (s.kind == 'User' && s.name == 'system:serviceaccount:' + request.namespace + ':' + params.metadata.name))`;
}

/**
 * What an identity may do is in its spec, and the operator alone binds it. Evaluated once for each
 * AutomationIdentity of the namespace: a binding has any number of subjects, and an expression can
 * afford to ask the authorizer about two of them, but about one of each parameter.
 *
 * What the operator writes is told by the label on it, which nobody else writes, so that a pipeline
 * with every right in the cluster is refused as well. What reached an identity before may still be
 * written: whoever takes another subject out, or owns it, isn't stopped.
 */
export function roleBindingPolicies(): AdmissionObject[] {
  const explain = (who: string): string =>
    `'what an AutomationIdentity may do is in its spec.permissions, and this RoleBinding would give more to ' + ${who} + ': take the subject out, and write what is needed, and why, there: kubectl edit aid ' + params.metadata.name + ' -n ' + request.namespace`;
  const message =
    'what an AutomationIdentity may do is in its spec.permissions: take its ServiceAccount, and every group of ServiceAccounts, out of the subjects';
  return validating({
    name: 'identity-role-bindings',
    description: 'Nobody but the operator gives an identity more rights in its namespace.',
    rules: [rule(resources.roleBindings, ['CREATE', 'UPDATE'])],
    objectSelector: {
      matchExpressions: [{ key: label.managedBy, operator: 'NotIn', values: [MANAGED_BY] }],
    },
    parameter: { kind: 'AutomationIdentity', matchLabels: {} },
    variables: {
      all: reachesAll('object'),
      one: reachesOne('object'),
      stood: `${isUpdate} && (${reachesAll('oldObject')} || ${reachesOne('oldObject')})`,
    },
    validations: [
      {
        expression: '!variables.all || variables.stood',
        message,
        messageExpression: explain(
          `'every ServiceAccount of the namespace, ' + params.metadata.name + ' among them'`,
        ),
      },
      {
        // Somebody else's ServiceAccount of the same name is his: only what is marked counts.
        expression: `!variables.one || variables.stood || !${isManaged('params.metadata.name')}`,
        message,
        messageExpression: explain(`'the ServiceAccount ' + params.metadata.name`),
      },
    ],
  });
}
