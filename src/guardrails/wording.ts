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
