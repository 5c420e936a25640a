import { readFile } from 'node:fs/promises';
import type { ControlPlane } from './control-plane.ts';

/**
 * The events of an audit log (audit.k8s.io/v1), in order. The API server goes on writing: a line
 * that isn't whole yet is left out.
 *
 * @param T the part of an event that is read
 */
export async function auditEvents<T>({
  auditLogPath,
}: Pick<ControlPlane, 'auditLogPath'>): Promise<T[]> {
  const text = await readFile(auditLogPath, 'utf8');
  const lines = text.slice(0, text.lastIndexOf('\n') + 1).split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as T);
}
