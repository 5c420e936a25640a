import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { load } from 'js-yaml';

const root = path.dirname(path.dirname(import.meta.dirname));

/** Bytes that the operator's container may have, as the chart says. @throws TypeError for no whole Mi */
export async function memoryLimit(): Promise<number> {
  const text = await readFile(path.join(root, 'charts/automation-guardrails/values.yaml'), 'utf8');
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the chart's own values
  const { resources } = load(text) as { resources: { limits: { memory: string } } };
  const [, mebibytes] = /^(\d+)Mi$/.exec(resources.limits.memory) ?? [];
  if (mebibytes === undefined) throw new TypeError(`a limit in Mi, not ${resources.limits.memory}`);
  return Number(mebibytes) * 2 ** 20;
}

/**
 * Options by which Node has the heap that it takes by itself in a container of so many bytes: half of
 * them for what lives on, and little for what is new.
 */
export function heapArgs(limit: number): string[] {
  return [`--max-old-space-size=${limit / 2 / 2 ** 20}`, '--max-semi-space-size=1'];
}
