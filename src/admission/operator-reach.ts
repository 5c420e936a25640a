import {
  annotation,
  GROUP,
  label,
  PROBE_NAMESPACE,
  secretPrefix,
  signingKeySecret,
} from '../api/names.ts';
import { resources } from '../api/resources.ts';
import {
  hasAnnotation,
  isDryRun,
  isManaged,
  isPerson,
  isUpdate,
  labelOf,
  mayOnIdentities,
} from './cel.ts';
import { rule, validating, type AdmissionObject } from './policies.ts';

const { jobs, roleBindings, secrets, serviceAccounts } = resources;

/** A verb that no role names: whoever may do it holds `*`, as cluster-admin does. */
const mayEverything = `authorizer.group('${GROUP}').resource('automationidentities').namespace(request.namespace).check('hold-every-verb').allowed()`;

const isOf = (plural: string): string => `request.resource.resource == '${plural}'`;

/**
 * RBAC lets the operator mint tokens, write Secrets and make Jobs in every namespace, since
 * identities come and go everywhere. This keeps whoever has stolen its token to what it does: no
 * token of a ServiceAccount that is no identity's, and no way around that by a Secret or a Job. Whom
 * it binds counts as an identity, so it binds nobody where no automation is guarded.
 */
export function operatorReachPolicies(): AdmissionObject[] {
  const name = `(request.operation == 'DELETE' ? oldObject : object).metadata.?name.orValue('')`;
  const account = `dyn(object).spec.template.spec.?serviceAccountName.orValue('')`;
  const ownName = `(variables.name.startsWith('${secretPrefix}') || variables.name == '${signingKeySecret}')`;
  const isGuarded = `(${labelOf('namespaceObject', label.environment)} != '' && request.namespace != 'kube-system')`;
  const isOpaque = `(request.operation != 'CREATE' || dyn(object).?type.orValue('') == 'Opaque')`;
  return validating({
    name: 'operator-reach',
    description:
      "The operator asks for tokens of identities alone, writes its own Secrets, makes hooks' Jobs, and binds nobody where no automation is guarded.",
    rules: [
      rule(serviceAccounts, ['CREATE'], 'token'),
      rule(secrets, ['CREATE', 'UPDATE', 'DELETE']),
      rule(jobs, ['CREATE']),
      rule(roleBindings, ['CREATE', 'UPDATE']),
    ],
    everywhere: true,
    conditions: {
      account: `!(${isPerson})`,
      // What it asks the other policies there is stored nowhere; a token is answered all the same.
      real: `${isOf(serviceAccounts.plural)} || request.namespace != '${PROBE_NAMESPACE}' || !${isDryRun}`,
      operator: mayOnIdentities('issue-tokens'),
      'not-admin': `!${mayEverything}`,
    },
    variables: { name },
    validations: [
      {
        expression: `!(${isOf(serviceAccounts.plural)}) || ${isManaged('request.name')}`,
        message:
          'the operator asks for tokens of AutomationIdentities alone, and this ServiceAccount is none; if it never asked, its credentials are in the wrong hands',
      },
      {
        expression: `!(${isOf(secrets.plural)}) || (${ownName} && ${isOpaque})`,
        message: `the operator writes Secrets of the type Opaque whose names begin with ${secretPrefix}, and no others; if it never asked, its credentials are in the wrong hands`,
      },
      {
        expression: `!(${isOf(jobs.plural)}) || (${hasAnnotation('object', annotation.rotationHook)} && ${isManaged(account)})`,
        message:
          'the operator makes Jobs of rotation hooks alone, which run as AutomationIdentities; if it never asked, its credentials are in the wrong hands',
      },
      {
        // What stands where the label was taken away since, is still written.
        expression: `!(${isOf(roleBindings.plural)}) || ${isGuarded} || (${isUpdate} && dyn(object).?subjects == dyn(oldObject).?subjects)`,
        message:
          'the operator binds AutomationIdentities in guarded namespaces alone; if it never asked, its credentials are in the wrong hands',
      },
    ],
  });
}
