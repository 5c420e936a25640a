import { isDeepStrictEqual } from 'node:util';
import type { RecordedPart } from '../../api/workflow-revision.ts';

/** One field that differs between two revisions. */
export interface Difference {
  /** `Workflow`, `AutomationIdentity`, or kind and name of a target. */
  part: string;
  /** Of the field; empty for the part as a whole. */
  path: string;
  /** JSON; `undefined` where it wasn't there. */
  before: string | undefined;
  after: string | undefined;
}

/** Differences that are told of one part; a program that was replaced has thousands. */
const maxPerPart = 200;

/** Characters of a value that are told. */
const maxValue = 300;

/** Every field that differs, in the order of the parts, and of the fields in them. */
export function differencesOf(
  before: readonly RecordedPart[],
  after: readonly RecordedPart[],
): Difference[] {
  const former = new Map(before.map((part) => [part.name, part]));
  const names = [...new Set([...after, ...before].map(({ name }) => name))];
  const latter = new Map(after.map((part) => [part.name, part]));
  return names.flatMap((name) => ofPart(name, former.get(name), latter.get(name)));
}

function ofPart(
  part: string,
  before: RecordedPart | undefined,
  after: RecordedPart | undefined,
): Difference[] {
  if (before?.digest === after?.digest) return [];
  const whole = (of: RecordedPart | undefined): string | undefined => of && `digest ${of.digest}`;
  const asWhole = { part, path: '', before: whole(before), after: whole(after) };
  if (before?.content === undefined || after?.content === undefined) return [asWhole];
  const found: Difference[] = [];
  const note = (path: string, was: unknown, is: unknown): void => {
    if (found.length > maxPerPart) return;
    found.push(
      found.length === maxPerPart
        ? { part, path: '…', before: undefined, after: undefined }
        : { part, path, before: valueOf(was), after: valueOf(is) },
    );
  };
  compare(parsed(before.content), parsed(after.content), '', note);
  // What differs is left out of both.
  return found.length === 0 ? [asWhole] : found;
}

function compare(
  before: unknown,
  after: unknown,
  path: string,
  note: (path: string, before: unknown, after: unknown) => void,
): void {
  if (isDeepStrictEqual(before, after)) return;
  const [was, is] = [entriesOf(before), entriesOf(after)];
  if (was === undefined || is === undefined || was.isList !== is.isList) {
    note(path, before, after);
    return;
  }
  for (const key of new Set([...is.entries.keys(), ...was.entries.keys()])) {
    const step = is.isList ? `[${key}]` : `${path === '' ? '' : '.'}${key}`;
    compare(was.entries.get(key), is.entries.get(key), path + step, note);
  }
}

/** Items of a list go by their names, where all have one: so that one more in between is one more. */
function entriesOf(value: unknown): { isList: boolean; entries: Map<string, unknown> } | undefined {
  if (Array.isArray(value)) {
    const items: readonly unknown[] = value;
    const names = items.map(nameOf);
    const areNamed =
      names.every((name) => name !== undefined) && new Set(names).size === names.length;
    return {
      isList: true,
      entries: new Map(
        items.map((item, index) => [(areNamed ? names[index] : undefined) ?? String(index), item]),
      ),
    };
  }
  if (typeof value !== 'object' || value === null) return undefined;
  return { isList: false, entries: new Map(Object.entries(value)) };
}

function nameOf(item: unknown): string | undefined {
  if (typeof item !== 'object' || item === null || !('name' in item)) return undefined;
  return typeof item.name === 'string' ? item.name : undefined;
}

function parsed(content: string): unknown {
  try {
    return JSON.parse(content);
  } catch {
    return content;
  }
}

function valueOf(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  const text = JSON.stringify(value);
  return text.length > maxValue ? `${text.slice(0, maxValue - 1)}…` : text;
}
