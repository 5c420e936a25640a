import { annotation, GROUP, label } from '../api/names.ts';

/** Pieces of CEL expressions. `of` is `object` or `oldObject`. */

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

/** Whether who asks holds a custom verb on the KillSwitch that the request is about. */
export function mayOnKillSwitch(verb: string, of = 'object'): string {
  return `authorizer.group('${GROUP}').resource('killswitches').namespace(${of}.metadata.namespace).name(${of}.metadata.name).check('${verb}').allowed()`;
}

export const isUpdate = `request.operation == 'UPDATE'`;
export const isReleasing = hasLabel('params', label.releasing);
export const isDryRun = `(has(request.dryRun) && request.dryRun)`;
export const isEngaging = hasAnnotation('object', annotation.killSwitch);
export const wasEngaging = `(${isUpdate} && ${hasAnnotation('oldObject', annotation.killSwitch)})`;
