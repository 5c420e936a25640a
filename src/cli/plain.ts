/** A text in one line, in which what others wrote can't look like ours: no control characters. */
export function plain(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}]/gu, ' ');
}
