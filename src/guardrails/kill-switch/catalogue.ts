import { readFile, stat } from 'node:fs/promises';
import { load } from 'js-yaml';
import { messageOf } from '../../runtime/errors.ts';
import { catalogueSchema, type ForeignKind } from './foreign-kinds.ts';

/** The administrator's catalogue can't be used; nothing of it is. */
export class CatalogueError extends Error {
  readonly code = 'INVALID_CATALOGUE';
  override readonly name = 'CatalogueError';

  constructor(file: string, problems: readonly string[]) {
    super(`The catalogue ${file} can't be used: ${problems.slice(0, 10).join('; ')}.`);
  }
}

const maxBytes = 64 * 1024;

/**
 * Reads the kinds that an administrator added, from a YAML or JSON file with a list.
 *
 * @throws CatalogueError that names what is wrong
 */
export async function readCatalogue(file: string): Promise<ForeignKind[]> {
  const { size } = await stat(file).catch((error: unknown) => {
    throw new CatalogueError(file, [`it can't be read (${firstLineOf(error)})`]);
  });
  if (size > maxBytes) throw new CatalogueError(file, [`it has more than ${maxBytes} bytes`]);
  return parseCatalogue(file, await readFile(file, 'utf8'));
}

/** @throws CatalogueError that names what is wrong */
export function parseCatalogue(file: string, text: string): ForeignKind[] {
  let entries: unknown;
  try {
    entries = load(text);
  } catch (error) {
    throw new CatalogueError(file, [`it isn't YAML (${firstLineOf(error)})`]);
  }
  const { success, data, error } = catalogueSchema.safeParse(entries);
  if (success) return data;
  throw new CatalogueError(
    file,
    error.issues.map(
      ({ path, message }) => `${path.length === 0 ? 'it' : path.join('.')} ${message}`,
    ),
  );
}

function firstLineOf(error: unknown): string {
  return messageOf(error).split('\n', 1)[0] ?? '';
}
