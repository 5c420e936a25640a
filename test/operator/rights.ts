/**
 * What the operator may do, compared with what it did: the API server's audit logs of a test run say
 * which requests its ServiceAccount made, and which role allowed each.
 */
import { createReadStream } from 'node:fs';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { PolicyRule } from '../../src/api/objects.ts';

/** A role, by its name within an installation, and its rules. */
export interface Role {
  name: string;
  rules: readonly PolicyRule[];
}

/** The part of an audit event (audit.k8s.io/v1, level Metadata) that is read here. */
interface AuditEvent {
  verb: string;
  objectRef?: { apiGroup?: string; resource?: string; subresource?: string };
  responseStatus?: { code?: number };
  annotations?: Record<string, string>;
}

/** One permission that a role grants, as `ROLE: VERB RESOURCE.GROUP`. */
type Right = string;

const allowedBy = /\bof (?:Cluster)?Role "automation-guardrails-([a-z-]+)"/;

/** Every single permission of these roles. */
export function rightsOf(roles: readonly Role[]): Set<Right> {
  return new Set(
    roles.flatMap(({ name, rules }) =>
      rules.flatMap(({ apiGroups = [], resources = [], verbs }) =>
        apiGroups.flatMap((group) =>
          resources.flatMap((resource) => verbs.map((verb) => right(name, verb, resource, group))),
        ),
      ),
    ),
  );
}

/** The permissions that one request used; none where no role of ours allowed it. */
export function rightsUsedBy(event: AuditEvent): Right[] {
  const { verb, objectRef, responseStatus, annotations = {} } = event;
  const [, role] = allowedBy.exec(annotations['authorization.k8s.io/reason'] ?? '') ?? [];
  if (role === undefined || objectRef?.resource === undefined) return [];
  const { apiGroup = '', resource, subresource } = objectRef;
  const what = subresource === undefined ? resource : `${resource}/${subresource}`;
  // A server-side apply of what doesn't exist needs both.
  const verbs = verb === 'patch' && responseStatus?.code === 201 ? ['patch', 'create'] : [verb];
  return verbs.map((used) => right(role, used, what, apiGroup));
}

/**
 * @param folder with audit logs, one JSON object a line
 * @returns every permission that was used, of whatever role
 */
export async function recordedRights(folder: string): Promise<Set<Right>> {
  const used = new Set<Right>();
  for (const file of await readdir(folder)) {
    for await (const line of createInterface({
      input: createReadStream(path.join(folder, file)),
    })) {
      for (const one of usedInLine(line)) used.add(one);
    }
  }
  return used;
}

/** A line that was cut off when the API server was killed tells nothing. */
function usedInLine(line: string): Right[] {
  try {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written by the API server
    return rightsUsedBy(JSON.parse(line) as AuditEvent);
  } catch {
    return [];
  }
}

function right(role: string, verb: string, resource: string, group: string): Right {
  return `${role}: ${verb} ${group === '' ? resource : `${resource}.${group}`}`;
}
