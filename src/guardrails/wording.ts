import type { ResourceAttributes } from '../api/objects.ts';
import { messageOf } from '../runtime/errors.ts';

/** Words of conditions and events, short at any number of objects. */

/** The first few, and how many more there are. */
export function some(names: readonly string[], most = 5): string {
  const first = names.slice(0, most).join(', ');
  return names.length > most ? `${first} and ${names.length - most} more` : first;
}

/** At most so many characters, the last of them `…` where something was cut off. */
export function clip(text: string, most = 512): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** What a retry may cure. */
export function triedAgain(error: unknown): string {
  return `It is tried again: ${messageOf(error).slice(0, 1024)}`;
}

/** A single right: `verb resource.group name`. */
export function rightText(right: Omit<ResourceAttributes, 'namespace'>): string {
  const { verb, resource, subresource, group, name } = right;
  const path = subresource === undefined ? resource : `${resource}/${subresource}`;
  return `${verb} ${path}${group === '' ? '' : `.${group}`}${name === undefined ? '' : ` ${name}`}`;
}
