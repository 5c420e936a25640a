import { annotation, GROUP, label } from '../api/names.ts';

/*
 * Pieces of CEL expressions. `of` is `object`, `oldObject` or `params`. An expression that meets a
 * missing field refuses the request, so every field that may be absent is asked for first.
 */

/** Value of an annotation, or the empty string. */
export function annotationOf(of: string, name: string): string {
  return `${of}.metadata.?annotations[?'${name}'].orValue('')`;
}

export function hasAnnotation(of: string, name: string): string {
  return `${of}.metadata.?annotations[?'${name}'].hasValue()`;
}

export function hasLabel(of: string, name: string): string {
  return `${of}.metadata.?labels[?'${name}'].hasValue()`;
}

/** Value of a label, or what stands for its absence. */
export function labelOf(of: string, name: string, absent = ''): string {
  return `${of}.metadata.?labels[?'${name}'].orValue('${absent}')`;
}

/** Whether the request changes an annotation of an existing object: adds, alters or removes it. */
export function changesAnnotation(name: string): string {
  return `(object.metadata.?annotations[?'${name}'] != oldObject.metadata.?annotations[?'${name}'])`;
}

/** JSON Patch operation that removes an annotation, which must be there. */
export function removeAnnotation(name: string): string {
  return `JSONPatch{op: 'remove', path: '/metadata/annotations/' + jsonpatch.escapeKey('${name}')}`;
}

/** JSON Patch operation that removes a label, which must be there. */
export function removeLabel(name: string): string {
  return `JSONPatch{op: 'remove', path: '/metadata/labels/' + jsonpatch.escapeKey('${name}')}`;
}

/**
 * Whether who asks holds a custom verb on the KillSwitch that the request is about. One such check
 * costs a third of what an expression may cost, so an expression can afford two.
 *
 * @param name expression: name of the KillSwitch, where the request is about something else
 */
export function mayOnKillSwitch(
  verb: KillSwitchVerb,
  name = `object.metadata.?name.orValue('')`,
): string {
  return `authorizer.group('${GROUP}').resource('killswitches').namespace(request.namespace).name(${name}).check('${verb}').allowed()`;
}

/**
 * The same of the object of ours that is itself written.
 *
 * @param name expression: its name
 */
export function mayOnThis(
  verb: KillSwitchVerb,
  name = `object.metadata.?name.orValue('')`,
): string {
  return `authorizer.group('${GROUP}').resource(request.resource.resource).namespace(request.?namespace.orValue('')).name(${name}).check('${verb}').allowed()`;
}

/**
 * Verbs of our own on `killswitches` and `clusterkillswitches`, given by RBAC like any other. For the
 * operator: `latch` passes on who engaged by annotation, `lift` writes the label `releasing`, and
 * `report` the status, of Workflows and AutomationIdentities, too. For people: `release` asks for
 * release, `break-glass` does so without a second person or an operator.
 */
export type KillSwitchVerb = 'latch' | 'lift' | 'report' | 'release' | 'break-glass';

/** A text in one line and of bounded length, as a message of a policy has to be. */
export function brief(text: string): string {
  return `(${text}.size() > 300 ? ${text}.substring(0, 300) + '…' : ${text}).replace('\\n', ' ')`;
}

export const user = 'request.userInfo.username';
/** Groups of the user who sends the request. */
export const groups = 'request.userInfo.?groups.orValue([])';
export const isPerson = `!${user}.startsWith('system:serviceaccount:')`;
/** The cluster's own controllers, whose pods and Jobs are part of what somebody else wrote. */
export const byClusterItself = `(${user} == 'system:kube-controller-manager' || ${user}.startsWith('system:serviceaccount:kube-system:'))`;
export const isUpdate = `(request.operation == 'UPDATE')`;

/** @param fields of the object, from its root; those that can be absent with `?` before their name */
export function areSame(fields: readonly string[]): string {
  return fields.map((field) => `dyn(object).?${field} == dyn(oldObject).?${field}`).join(' && ');
}

/** A ConfigMap is written back as it is, as the migration of stored versions does. */
export const isConfigMapUnchanged = `(${isUpdate} && ${areSame([
  'data',
  'binaryData',
  'immutable',
  'metadata.?labels',
  'metadata.?annotations',
  'metadata.?ownerReferences',
  'metadata.?finalizers',
])})`;

export const isReleasing = hasLabel('params', label.releasing);
export const isDryRun = `(has(request.dryRun) && request.dryRun)`;
export const isProbe = hasAnnotation('object', annotation.probe);

/**
 * Verbs of our own on `automationidentities`: `issue-tokens` asks for tokens that are bound to a
 * Secret, `manage-children` writes what the operator created.
 */
export type IdentityVerb = 'issue-tokens' | 'manage-children';

const identities = `group('${GROUP}').resource('automationidentities').namespace(request.namespace)`;

/** Whether who asks holds a custom verb on the AutomationIdentities of the namespace. */
export function mayOnIdentities(verb: IdentityVerb): string {
  return `authorizer.${identities}.check('${verb}').allowed()`;
}

/**
 * Whether a ServiceAccount of the request's namespace is an identity's: the operator bound it to the
 * ClusterRole that grants `represent`, and the authorizer is asked in its name. No parameter is
 * read. It costs a third of what an expression may cost: ask for what is cheap first.
 *
 * @param serviceAccountName expression: its name; an empty one isn't an identity's
 */
export function isManaged(serviceAccountName: string): string {
  return `(${serviceAccountName} != '' && authorizer.serviceAccount(request.namespace, ${serviceAccountName}).${identities}.name(${serviceAccountName}).check('represent').allowed())`;
}
