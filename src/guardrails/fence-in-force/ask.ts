import type { Denial, Mutation, ProbeRequest } from '../../admission/index.ts';
import { PROBE_NAMESPACE } from '../../api/names.ts';
import type { KubeObject } from '../../api/objects.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { ApiError, isAlreadyExists } from '../../runtime/errors.ts';
import type { Force } from './plan.ts';

/**
 * Sends the requests of one policy as dry runs, and tells from the API server's answers whether the
 * policy is in force. Never throws.
 *
 * @returns the first answer that isn't the one of a policy in force
 */
export async function askPolicy(
  client: KubeClient,
  name: string,
  probe: Denial | Mutation,
  signal: AbortSignal,
): Promise<Force> {
  for (const request of probe.requests) {
    const force = await askOnce(client, name, { probe, request }, signal);
    if (force.kind !== 'InForce') return force;
  }
  return { kind: 'InForce' };
}

async function askOnce(
  client: KubeClient,
  name: string,
  { probe, request }: { probe: Denial | Mutation; request: ProbeRequest },
  signal: AbortSignal,
): Promise<Force> {
  const what = `${request.verb} ${request.resource.plural}`;
  try {
    const answer = await send(client, request, signal);
    if (probe.kind === 'Mutation' && probe.shows(answer)) return { kind: 'InForce' };
    return {
      kind: 'NotInForce',
      why: `${what}: ${probe.kind === 'Mutation' ? 'unchanged' : 'admitted'}`,
    };
  } catch (error) {
    return error instanceof ApiError
      ? forceOf(name, probe, error, what)
      : { kind: 'Unknown', why: `${what}: no answer of the API server` };
  }
}

/**
 * What a refusal says of the policy. Quotas and existing names are looked at after the policies, so
 * a refusal for one of those means that the policy let the request pass.
 */
function forceOf(name: string, probe: Denial | Mutation, error: ApiError, what: string): Force {
  const { message, status } = error;
  const own = denialOf(message, name);
  if (own !== undefined) {
    return probe.kind === 'Denial' && own.includes(probe.says)
      ? { kind: 'InForce' }
      : { kind: 'Unknown', why: `${what}: refused for another reason: ${brief(own)}` };
  }
  if (probe.kind === 'Mutation' && denialOf(message, probe.twin) !== undefined) {
    return { kind: 'NotInForce', why: `${what}: unchanged, so that ${probe.twin} refused it` };
  }
  if (isAlreadyExists(error) || (status === 403 && message.includes('exceeded quota'))) {
    return { kind: 'NotInForce', why: `${what}: admitted` };
  }
  return { kind: 'Unknown', why: `${what}: refused by something else: ${brief(message)}` };
}

/** What the policy said when it refused, or `undefined` where it wasn't the one. */
function denialOf(message: string, policy: string): string | undefined {
  const denial = `ValidatingAdmissionPolicy '${policy}' with binding '${policy}' denied request: `;
  const start = message.indexOf(denial);
  return start < 0 ? undefined : message.slice(start + denial.length);
}

function brief(text: string): string {
  return text.length > 160 ? `${text.slice(0, 160)}…` : text;
}

function send(client: KubeClient, request: ProbeRequest, signal: AbortSignal): Promise<KubeObject> {
  const options = { dryRun: true, signal };
  const { resource } = request;
  switch (request.verb) {
    case 'create':
      return client.create(resource, request.object, options);
    case 'patch':
      return client.mergePatch(resource, keyOf(request), request.patch, options);
    case 'delete':
      return client
        .delete(resource, keyOf(request), options)
        .then(() => ({ metadata: { name: request.name } }));
  }
}

function keyOf({ resource, name }: ProbeRequest & { name: string }): {
  name: string;
  namespace?: string;
} {
  return resource.namespaced ? { namespace: PROBE_NAMESPACE, name } : { name };
}
