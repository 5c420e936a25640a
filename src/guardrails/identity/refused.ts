import {
  readOnlyGroups,
  readOnlyResources,
  readVerbs,
  refusedResources,
  type Permission,
} from '../../api/automation-identity.ts';
import { secretPrefix } from '../../api/names.ts';
import type { Problem } from '../requirements.ts';

/**
 * What no automation is granted, whoever asks. The schema refuses the same with the reason in its
 * message (src/api/automation-identity.ts); an object that was stored before the schema that is
 * installed now is kept from it here.
 *
 * @param identity name of the AutomationIdentity
 * @returns what is refused, in a few words; `undefined` for what may be granted
 */
export function refusalOf(
  { apiGroups, resources, resourceNames = [], verbs }: Permission,
  identity: string,
): string | undefined {
  const all = [...apiGroups, ...resources, ...resourceNames, ...verbs];
  if (all.some((item) => item.includes('*'))) return "'*'";
  const refused = resources.find((resource) => refusedResources.includes(resource));
  if (refused !== undefined) return refused;
  const lifting = verbs.find(
    (verb) => verb === 'escalate' || verb === 'bind' || verb.startsWith('impersonate'),
  );
  if (lifting !== undefined) return lifting;
  if (verbs.some((verb) => !readVerbs.includes(verb))) {
    const group = apiGroups.find((one) => readOnlyGroups.includes(one));
    if (group !== undefined) return `to write ${group}`;
    for (const one of apiGroups) {
      const guardrail = resources.find((resource) => readOnlyResources[one]?.includes(resource));
      if (guardrail !== undefined) return `to write ${guardrail}`;
    }
  }
  if (!apiGroups.includes('') || !resources.includes('secrets')) return undefined;
  const reading = verbs.find((verb) => ['list', 'watch', 'deletecollection'].includes(verb));
  if (reading !== undefined) return `${reading} of secrets`;
  if (resourceNames.length === 0 && verbs.some((verb) => verb !== 'create')) {
    return 'secrets without resourceNames';
  }
  const anothers = resourceNames.find(
    (name) => name.startsWith(secretPrefix) && name.split('.', 3)[1] !== identity,
  );
  return anothers === undefined ? undefined : `secrets ${anothers}`;
}

/** The permissions of a spec, apart from those that are refused. */
export function withoutRefused(
  permissions: readonly Permission[],
  identity: string,
): { permissions: Permission[]; problem: Problem | undefined } {
  const refused = permissions.map((permission) => refusalOf(permission, identity));
  const named = [...new Set(refused.flatMap((one) => one ?? []))];
  const more = named.length > 5 ? ` and ${named.length - 5} more` : '';
  return {
    permissions: permissions.filter((_, index) => refused[index] === undefined),
    problem:
      named.length === 0
        ? undefined
        : {
            reason: 'PermissionsRefused',
            message: `No automation is granted ${named.slice(0, 5).join(', ')}${more}; such entries of spec.permissions are left out. They were stored before the schema that is installed now: apply the object again, and the API server says what to write instead.`,
          },
  };
}
