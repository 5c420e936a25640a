import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';

const root = path.dirname(import.meta.dirname);

/** The pages of the documentation, as paths from the root of the repository, sorted. */
export const pages: readonly string[] = [
  ...globSync('*.md', { cwd: root }),
  ...globSync('docs/**/*.md', { cwd: root }),
].toSorted();

/** What a page says. */
export const textOf = (page: string): string => readFileSync(path.join(root, page), 'utf8');

/** Code on a page: a block between fences, or a span between backticks. */
export interface Code {
  /** Of a block; `''` where it names none. `undefined` for a span. */
  readonly language: string | undefined;
  /** Without the indentation of the block. */
  readonly text: string;
}

/** All code of a page, in its order. */
export function codeOf(text: string): Code[] {
  const code = /^( *)```(\w*)\n([\s\S]*?)^ *```$|`([^`\n]+)`/gm;
  return [...text.matchAll(code)].map(([, indent = '', language, block = '', span]) =>
    span === undefined
      ? { language: language ?? '', text: block.replaceAll(new RegExp(`^${indent}`, 'gm'), '') }
      : { language: undefined, text: span },
  );
}

/** The blocks of a page in one language. */
export const blocksOf = (text: string, language: string): string[] =>
  codeOf(text)
    .filter((code) => code.language === language)
    .map((code) => code.text);

/**
 * What a page tells people to type, in its order and without comments: each command of a block of
 * `sh`, what follows `$ ` in other blocks, and spans that are more than the name of a command.
 */
export function commandsOf(text: string): string[] {
  return codeOf(text).flatMap(({ language, text: code }) => {
    if (language === undefined) return isCommand(code) ? [code.replaceAll('\\|', '|')] : [];
    const commands = wholeCommands(code);
    if (language === 'sh') return commands.map(withoutComment).filter((line) => line !== '');
    return commands
      .filter((line) => line.startsWith('$ '))
      .map((line) => withoutComment(line.slice(2)));
  });
}

/** Lines with those that continue them, by a backslash or as a here-document. */
function wholeCommands(code: string): string[] {
  const line = /(?:[^\n]*\\\n)*[^\n]*<<(\w+)[^\n]*\n[\s\S]*?^\1$|(?:[^\n]*\\\n)*[^\n]+/gm;
  return (code.match(line) ?? []).map((command) => command.replaceAll(/ *\\\n\s*/g, ' '));
}

const withoutComment = (line: string): string => line.replace(/(^|\s+)# .*$/, '').trim();

/** `kubectl guardrails kill` is a name; with an argument, it is something to type. */
function isCommand(span: string): boolean {
  const typed =
    /^(?:(?:kubectl(?! guardrails \S+$)(?: -n \S+)?|helm|vault|npm(?: run)?|promtool) [a-z]\S*|source) \S/;
  return typed.test(span) && !span.replaceAll('"…"', '').includes('…');
}
