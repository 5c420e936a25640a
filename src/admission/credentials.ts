import { maxTokenSeconds } from '../api/automation-identity.ts';
import { label, MANAGED_BY, secretPrefix } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import {
  annotationOf,
  isConfigMapUnchanged,
  isManaged,
  isUpdate,
  mayOnIdentities,
  user,
} from './cel.ts';
import { rule, validating, type AdmissionObject } from './policies.ts';

/** What holds for the credentials of every identity, engaged or not. */
export function credentialPolicies(): AdmissionObject[] {
  return [
    ...refuseTokenSecrets(),
    ...boundTokens(),
    ...reserveSecretNames(),
    ...reserveAccountNames(),
    ...protectCopyRecords(),
  ];
}

/** A Secret of this type is answered with a token that never expires. */
function refuseTokenSecrets(): AdmissionObject[] {
  const type = 'kubernetes.io/service-account-token';
  const account = (of: string): string => annotationOf(of, 'kubernetes.io/service-account.name');
  // One that stands from before is left to be labelled, released and deleted.
  const asks = [
    `${account('object')} != ${account('oldObject')}`,
    `object.?data[?'token'] != oldObject.?data[?'token']`,
  ].join(' || ');
  return validating({
    name: 'identity-token-secrets',
    description: 'No Secret that asks for a token of an identity, which would never expire.',
    rules: [rule(resources.secrets, ['CREATE', 'UPDATE'])],
    conditions: {
      asks: `object.?type.orValue('') == '${type}' && (!${isUpdate} || ${asks})`,
      managed: isManaged(account('object')),
    },
    validations: [
      {
        expression: 'false',
        message:
          'an identity has no tokens that never expire: run in a pod with its serviceAccountName, which gets short-lived ones',
        messageExpression: `'the ServiceAccount ' + ${account('object')} + ' is that of an AutomationIdentity, and has no tokens that never expire: run in a pod with serviceAccountName: ' + ${account('object')} + ', which gets short-lived ones'`,
      },
    ],
  });
}

function boundTokens(): AdmissionObject[] {
  const isNode = `('system:nodes' in request.userInfo.?groups.orValue([]) && ${user}.startsWith('system:node:'))`;
  return validating({
    name: 'identity-tokens',
    description:
      'Tokens of an identity are short-lived, and bound to a pod by its node or to a Secret by the operator.',
    rules: [rule(resources.serviceAccounts, ['CREATE'], 'token')],
    conditions: { managed: isManaged('request.name') },
    variables: {
      boundTo: `object.spec.?boundObjectRef.?kind.orValue('')`,
      seconds: `object.spec.?expirationSeconds.orValue(${maxTokenSeconds})`,
    },
    validations: [
      {
        expression: `(variables.boundTo == 'Pod' && ${isNode}) || (variables.boundTo == 'Secret' && ${mayOnIdentities('issue-tokens')})`,
        message:
          "tokens of an identity are requested by its pods' nodes and by the operator: run in a pod with its serviceAccountName",
        messageExpression: `'the ServiceAccount ' + request.name + ' is that of an AutomationIdentity: its tokens are bound to a pod or a Secret and requested by the node or the operator. Run in a pod with serviceAccountName: ' + request.name`,
      },
      {
        expression: `variables.seconds <= ${maxTokenSeconds}`,
        message: `tokens of an identity live at most ${maxTokenSeconds} s: ask for less, also in the projected volumes of its pods`,
        messageExpression: `'tokens of the AutomationIdentity ' + request.name + ' live at most ${maxTokenSeconds} s, and ' + string(variables.seconds) + ' s were asked for: ask for less, also in the projected volumes of its pods'`,
      },
    ],
  });
}

/** By the name alone, a Secret of somebody else's would pass for an identity's. */
function reserveSecretNames(): AdmissionObject[] {
  const name = `object.metadata.?name.orValue('')`;
  return validating({
    name: 'identity-secret-names',
    description: `Names that begin with ${secretPrefix} are those of generated credentials.`,
    rules: [rule(resources.secrets, ['CREATE'])],
    conditions: { reserved: `${name}.startsWith('${secretPrefix}')` },
    validations: [
      {
        expression: mayOnIdentities('manage-children'),
        message: `names that begin with ${secretPrefix} are those of credentials that ${MANAGED_BY} generates: choose another one`,
      },
    ],
  });
}

/**
 * A kill deletes the ServiceAccount, and its mark stays: until the release has made it anew, another
 * one of that name would take its place in every binding and pod template.
 */
function reserveAccountNames(): AdmissionObject[] {
  const name = `object.metadata.?name.orValue('')`;
  return validating({
    name: 'identity-accounts',
    description: 'A ServiceAccount of the name of an identity is made by the operator alone.',
    rules: [rule(resources.serviceAccounts, ['CREATE'])],
    conditions: { managed: isManaged(name) },
    validations: [
      {
        expression: mayOnIdentities('manage-children'),
        message: `an AutomationIdentity of this name has its ServiceAccount from ${MANAGED_BY}: choose another name`,
      },
    ],
  });
}

/** What was copied to a vault has to be known when the identity is gone, or it stays there. */
function protectCopyRecords(): AdmissionObject[] {
  const goesWithNamespace = `(request.operation == 'DELETE' && namespaceObject.metadata.?deletionTimestamp.hasValue())`;
  return validating({
    name: 'copy-records',
    description: 'What was copied to a vault is written down by the operator alone.',
    rules: [rule(resources.configMaps, ['CREATE', 'UPDATE', 'DELETE'])],
    everywhere: true,
    objectSelector: { matchExpressions: [{ key: label.copies, operator: 'Exists' }] },
    validations: [
      {
        expression: `${goesWithNamespace} || ${isConfigMapUnchanged} || ${mayOnIdentities('issue-tokens')}`,
        message: `a ConfigMap with the label ${label.copies} is written by the operator alone: it says what is to be destroyed in the vault`,
      },
    ],
  });
}
