/**
 * The page that a report is: no script, no font, no picture, no request. What others wrote is text
 * in it, whatever it looks like.
 */

import { html, type Markup } from './markup.ts';
import { style } from './report-style.ts';

/** A whole page. */
export function page(title: string, body: readonly Markup[]): string {
  const { text } = html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta
          http-equiv="Content-Security-Policy"
          content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
        />
        <meta name="referrer" content="no-referrer" />
        <title>${title}</title>
        ${style}
      </head>
      <body>
        ${body}
      </body>
    </html> `;
  return text;
}

/** A part of the page under a heading; nothing where there is nothing to show. */
export function section(title: string, content: readonly Markup[], explanation = ''): Markup {
  if (content.length === 0) return html``;
  const explained = explanation === '' ? html`` : html`<p class="soft">${explanation}</p>`;
  return html`<section>
    <h2>${title}</h2>
    ${explained} ${content}
  </section>`;
}

/** Rows under a head; on a narrow screen each row is a card. Nothing where there are no rows. */
export function table(
  head: readonly string[],
  rows: readonly (readonly (string | Markup)[])[],
): Markup[] {
  if (rows.length === 0) return [];
  const body = rows.map((cells) => {
    const row = cells.map((cell, at) => html`<td data-of="${head[at] ?? ''}">${cell}</td>`);
    return html`<tr>
      ${row}
    </tr>`;
  });
  return [
    html`<table>
      <thead>
        <tr>
          ${head.map((cell) => html`<th scope="col">${cell}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${body}
      </tbody>
    </table>`,
  ];
}

/** Terms and what they are; what is empty is left out. */
export function terms(rows: readonly (readonly [string, string])[]): Markup {
  const known = rows.filter(([, text]) => text !== '');
  return html`<dl>
    ${known.map(
      ([term, text]) =>
        html`<dt>${term}</dt>
          <dd>${text}</dd>`,
    )}
  </dl>`;
}

/** `KillEngaged` as people write it. */
export function words(camelCase: string): string {
  const [first = '', ...rest] = camelCase.split(/(?<=[a-z])(?=[A-Z])/);
  return [first, ...rest.map((word) => word.toLowerCase())].join(' ');
}

/** `2026-01-31`. */
export function dayOf(time: string): string {
  return time.slice(0, 10);
}

/** `08:12:03`, in UTC like every time of the report. */
export function clockOf(time: string): string {
  return time.slice(11, 19);
}

/** `2026-01-31 08:12:03 UTC`. */
export function momentOf(time: string): string {
  return /^\d{4}-\d\d-\d\dT\d\d:\d\d/.test(time) ? `${dayOf(time)} ${clockOf(time)} UTC` : time;
}
