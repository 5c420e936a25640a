import { z } from 'zod';
import { annotation, GROUP, label } from '../../api/names.ts';
import type { KubeObject, ServiceAccount } from '../../api/objects.ts';

const texts = z.record(z.string(), z.string());

const keptSchema = z.object({
  labels: texts.exactOptional(),
  annotations: texts.exactOptional(),
  imagePullSecrets: z.array(z.object({ name: z.string() })).exactOptional(),
});

/** What others had on a ServiceAccount of ours, which its deletion would lose. */
export type KeptServiceAccount = z.infer<typeof keptSchema>;

/** By the ServiceAccount's name. */
export type KeptServiceAccounts = Readonly<Record<string, KeptServiceAccount>>;

/**
 * Characters of the annotation that holds it all. An object's annotations may have 256 KiB, and the
 * API server holds every KillSwitch in memory, whole.
 */
const maxKeptLength = 65_536;

/** Accounts of a whole namespace; their names take up to 66 characters each besides. */
const maxKeptAccounts = 1_000;

/** Labels that are ours; whoever else's value they had, ours is put back. */
const ownLabels: ReadonlySet<string> = new Set([label.managedBy, label.identity]);

/** Everything on it that we didn't write, and that isn't particular to this one object. */
export function keptOf({ metadata, imagePullSecrets = [] }: ServiceAccount): KeptServiceAccount {
  const labels = foreign(metadata.labels);
  const annotations = foreign(metadata.annotations);
  const names = imagePullSecrets.flatMap(({ name }) => (name === undefined ? [] : [{ name }]));
  return {
    ...(Object.keys(labels).length > 0 && { labels }),
    ...(Object.keys(annotations).length > 0 && { annotations }),
    ...(names.length > 0 && { imagePullSecrets: names }),
  };
}

function foreign(entries: Record<string, string> = {}): Record<string, string> {
  return Object.fromEntries(
    Object.entries(entries)
      .filter(([key]) => !ownLabels.has(key) && !key.startsWith(`${GROUP}/`))
      .toSorted(([a], [b]) => (a < b ? -1 : 1)),
  );
}

/** What a KillSwitch or a mark keeps of ServiceAccounts that were taken away; total. */
export function readKept(holder: KubeObject): KeptServiceAccounts {
  const text = holder.metadata.annotations?.[annotation.restoreServiceAccount];
  if (text === undefined) return {};
  const parsed = z.record(z.string(), keptSchema).safeParse(fromJson(text));
  if (!parsed.success) return {};
  // The marks of our own group are never anybody's to hand in.
  return Object.fromEntries(
    Object.entries(parsed.data).map(([name, { imagePullSecrets = [], ...marks }]) => [
      name,
      keptOf({ metadata: { name, ...marks }, imagePullSecrets }),
    ]),
  );
}

function fromJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** What becomes of {@link KeptServiceAccounts} on their way into an annotation. */
export interface Keeping {
  /** The annotation's value; `undefined` where there is nothing to keep. */
  text: string | undefined;
  /** Names of ServiceAccounts of which not everything found room. */
  cut: readonly string[];
}

/**
 * As an annotation, the same for the same content. Of an account that doesn't fit nothing is kept
 * but that it stood, the largest first: a kill isn't kept waiting by whoever writes long
 * annotations.
 */
export function writeKept(kept: KeptServiceAccounts): Keeping {
  const names = Object.keys(kept).toSorted().slice(0, maxKeptAccounts);
  if (names.length === 0) return { text: undefined, cut: [] };
  const entries = names.map((name) => ({ name, text: JSON.stringify(kept[name] ?? {}) }));
  let room = maxKeptLength;
  const fitting = new Set<string>();
  for (const { name, text } of entries.toSorted((a, b) => a.text.length - b.text.length)) {
    room -= text.length;
    if (room >= 0) fitting.add(name);
  }
  const parts = entries.map(
    ({ name, text }) => `${JSON.stringify(name)}:${fitting.has(name) ? text : '{}'}`,
  );
  return {
    text: `{${parts.join(',')}}`,
    cut: Object.keys(kept).filter((name) => !fitting.has(name)),
  };
}

/**
 * What is kept of a ServiceAccount.
 *
 * @param holders the KillSwitches over its identity, and the identity's mark
 */
export function keptFor(
  name: string,
  holders: readonly (KubeObject | undefined)[],
): KeptServiceAccount | undefined {
  return holders
    .flatMap((holder) => (holder === undefined ? [] : [readKept(holder)[name]]))
    .find((kept) => kept !== undefined);
}
