import { knownFormatOf } from './credential-formats.ts';
import type { PodTemplate } from './objects.ts';

/** Something in a pod template that looks like a credential. Nothing of its value. */
export interface SecretHint {
  /** `container main, env DB_PASSWORD`; names as the author wrote them, short. */
  place: string;
  /** `a GitHub token`, `a value of 24 characters under a telling name`. */
  looksLike: string;
}

/** Hints of one template that are kept. */
const maxHints = 16;

/** Longer texts aren't looked through to the end. */
const maxText = 65_536;

/**
 * What of a pod template looks like a credential: values of env, args, commands and annotations that
 * have a known format, or that are random enough under a name that tells. Total.
 */
export function secretHintsOf(template: PodTemplate | undefined): SecretHint[] {
  const hints: SecretHint[] = [];
  const add = (place: string, looksLike: string | undefined): void => {
    if (looksLike !== undefined && hints.length < maxHints) hints.push({ place, looksLike });
  };
  for (const field of ['containers', 'initContainers', 'ephemeralContainers']) {
    for (const container of listOf(fieldOf(template?.spec, field))) {
      const of = `container ${named(fieldOf(container, 'name'))}`;
      for (const entry of listOf(fieldOf(container, 'env'))) {
        const name = textOf(fieldOf(entry, 'name'));
        const value = textOf(fieldOf(entry, 'value'));
        add(`${of}, env ${named(name)}`, looks(name, value));
      }
      for (const words of ['command', 'args']) {
        const list = listOf(fieldOf(container, words)).map(textOf);
        for (const [index, word] of list.entries()) {
          add(`${of}, ${words}[${index}]`, looksInWord(word, list[index - 1] ?? ''));
        }
      }
    }
  }
  for (const [key, value] of Object.entries(template?.metadata?.annotations ?? {})) {
    add(`annotation ${named(key)} of the pod template`, knownFormatOf(textOf(value)));
  }
  return hints;
}

function looks(name: string, value: string): string | undefined {
  return knownFormatOf(value) ?? urlWithPassword(value) ?? random(name, value);
}

/** `--db-password=VALUE`, or `--db-password` and `VALUE` behind it. */
function looksInWord(word: string, before: string): string | undefined {
  const [, flag = '', value = ''] = /^-{1,2}([\w-]{1,64})=(.*)$/s.exec(word) ?? [];
  const [, flagBefore = ''] = /^-{1,2}([\w-]{1,64})$/.exec(before) ?? [];
  return (
    knownFormatOf(word) ?? urlWithPassword(word) ?? random(flag, value) ?? random(flagBefore, word)
  );
}

function urlWithPassword(text: string): string | undefined {
  const [, password = ''] = /:\/\/[^\s/:@]{0,128}:([^\s/@]{6,128})@/.exec(text) ?? [];
  return password === '' || isReference(password) ? undefined : 'a URL with a password';
}

/** Filled in by Kubernetes or by a shell. */
function isReference(text: string): boolean {
  return /\$[({A-Za-z_]/.test(text);
}

const telling =
  /pass(word|wd|phrase|code)?s?$|pwd$|token$|secret$|(api|private|access|auth|account|encryption|signing|master|secret)_?key$|credentials?$/;

/** Enough characters, of enough kinds, that differ enough: what people name things is less. */
function random(name: string, value: string): string | undefined {
  const isTelling = telling.test(name.toLowerCase().replaceAll('-', '_'));
  if (!isTelling || value.length > 512 || /\s|^[./]|:\/\/|@sha256:/.test(value)) return undefined;
  if (isReference(value)) return undefined;
  const kinds = [/[a-z]/, /[A-Z]/, /[0-9]/, /[^0-9A-Za-z._/:-]/].filter((kind) => kind.test(value));
  const bare = value.replaceAll(/[._/:-]/g, '');
  const isLong = bare.length >= (kinds.length > 2 ? 10 : 20);
  const isMixed = kinds.length > 1 && /[0-9]|[^0-9A-Za-z]/.test(bare);
  if (!isLong || !isMixed || (kinds.length === 2 && areWords(value)) || bitsPerCharacter(bare) < 3)
    return undefined;
  return `a value of ${value.length} characters that is as good as random, under a telling name`;
}

/** `invoice-posting-db-credentials-v2`. */
function areWords(value: string): boolean {
  const parts = value.split(/[._/:-]/);
  const words = parts.filter((part) => /^([a-z]+|[A-Z]+)$/.test(part));
  return parts.length > 1 && words.join('').length * 2 > value.length;
}

/** Shannon's entropy. */
function bitsPerCharacter(text: string): number {
  const counts = Map.groupBy(text, (character) => character);
  let bits = 0;
  for (const { length } of counts.values()) {
    const share = length / text.length;
    bits -= share * Math.log2(share);
  }
  return bits;
}

/** A name as it may be shown: one that is none of a credential itself, and short. */
function named(name: unknown): string {
  const text = textOf(name);
  return text === '' || knownFormatOf(text) !== undefined ? '(unnamed)' : text.slice(0, 63);
}

function fieldOf(value: unknown, field: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, field) : undefined;
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, maxText) : '';
}
