import { dump } from 'js-yaml';
import type { Session } from './command.ts';

/** Title of a column, and what stands in it. */
export type Columns<Row> = Readonly<Record<string, (row: Row) => string>>;

/**
 * Prints rows as `--output` says.
 *
 * @param none the sentence for no row, in a table
 * @param wide columns that a table has only with `-o wide`
 */
export function print<Row>(
  { output, stdout }: Pick<Session, 'output' | 'stdout'>,
  rows: readonly Row[],
  columns: Columns<Row>,
  none: string,
  wide: Columns<Row> = {},
): void {
  if (output === 'json') stdout(JSON.stringify(rows, undefined, 2));
  else if (output === 'yaml') stdout(dump(rows).trimEnd());
  else if (rows.length === 0) stdout(none);
  else stdout(table(rows, output === 'wide' ? { ...columns, ...wide } : columns));
}

/** A table as kubectl prints it: aligned columns, two spaces between them. */
export function table<Row>(rows: readonly Row[], columns: Columns<Row>): string {
  const header = Object.keys(columns);
  const cells = rows.map((row) => Object.values(columns).map((cell) => cell(row)));
  const widths = header.map((title, column) =>
    Math.max(title.length, ...cells.map((row) => row[column]?.length ?? 0)),
  );
  return [header, ...cells]
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
