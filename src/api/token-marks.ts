import type { Tier } from './guardrail-policy.ts';

/**
 * What a generated token begins with, by the tier of the namespace that it was made in. It says for
 * which tier a token is good, to people, to scanners and to admission, and nothing else of it.
 */
export const tokenMarks = {
  dev: 'agdev_',
  test: 'agtest_',
  prod: 'agprod_',
} as const satisfies Record<Tier, string>;

/**
 * Characters that a token has at least if it carries a mark: those behind the mark are random, and
 * of fewer, too few would be.
 */
export const markedTokenLength = 32;

const leastBehindMark =
  markedTokenLength - Math.max(...Object.values(tokenMarks).map(({ length }) => length));

/**
 * What finds a token that carries a mark, where it stands as it is; not the mark alone, which others
 * may speak of. The pattern means the same in JavaScript and in RE2; a short one, since it costs by
 * its length there.
 */
export function markedTokenPattern(mark: string): string {
  return `${mark}[\\w-]{${leastBehindMark}}`;
}

/**
 * What a text stands as in base64, wherever it begins in what was encoded: one of three, by what
 * precedes it. The characters at its ends that depend on its neighbours aren't among them.
 *
 * @param text ASCII
 */
export function base64Forms(text: string): string[] {
  return [0, 1, 2].map((before) => {
    const encoded = Buffer.from('\0'.repeat(before) + text).toString('base64');
    const bits = 8 * (before + text.length);
    return encoded.slice(Math.ceil((8 * before) / 6), Math.floor(bits / 6));
  });
}
