/** Markup that is safe to put into a page. */
export class Markup {
  readonly text: string;

  private constructor(text: string) {
    this.text = text;
  }

  /** Joins literal markup and values: text is escaped, markup isn't, of lists each. */
  static of(
    this: void,
    literals: TemplateStringsArray,
    ...values: readonly (string | number | Markup | readonly Markup[])[]
  ): Markup {
    const parts = literals.map((literal, index) => {
      const value = values[index];
      if (value === undefined) return literal;
      if (value instanceof Markup) return literal + value.text;
      if (typeof value === 'object') return literal + value.map(({ text }) => text).join('\n');
      return literal + escaped(String(value));
    });
    return new Markup(parts.join(''));
  }
}

/** Tag of a template that is markup. */
export const html = Markup.of;

function escaped(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;');
}
