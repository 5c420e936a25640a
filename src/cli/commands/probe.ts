import { randomBytes } from 'node:crypto';
import { isIP } from 'node:net';
import { isDeepStrictEqual } from 'node:util';
import { conditionOf } from '../../api/conditions.ts';
import type { NetworkPolicy } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { EgressProbe } from '../../api/workflow.ts';
import { mayConnect } from '../../guardrails/egress/evaluate.ts';
import { probeLabels, probePod, resultOf } from '../../guardrails/egress/probe.ts';
import {
  exit,
  follow,
  isForbidden,
  required,
  UsageError,
  type Command,
  type Session,
} from '../command.ts';

const form = 'probe NAME';

/** What the operator's own image is built on: its entry point is Node.js. */
const defaultImage = 'gcr.io/distroless/nodejs24-debian12:nonroot';

/** Tries whether the cluster enforces NetworkPolicies, by a pod of the automation. */
export const probeCommand: Command = {
  name: 'probe',
  usage: [[form, 'try in a pod of Workflow NAME whether its NetworkPolicies are enforced']],
  options: {
    timeout: { type: 'string' },
    image: { type: 'string' },
    denied: { type: 'string' },
    allowed: { type: 'string' },
  },
  run: async (session) => probe(session, required(session.names[0], form)),
};

async function probe(session: Session, name: string): Promise<number> {
  const { client, namespace, stdout, stderr } = session;
  const denied = session.option('denied');
  const allowed = session.option('allowed');
  const [workflow, policies] = await Promise.all([
    client.get(resources.workflows, { namespace, name }),
    client.list(resources.networkPolicies, { namespace }),
  ]);
  if (workflow === undefined) {
    throw new UsageError(`there is no Workflow ${name} in namespace ${namespace}`);
  }
  const target = { namespace, name, policies };
  refuseWhereItProvesNothing(denied ?? (await apiServer(session)), false, '--denied', target);
  refuseWhereItProvesNothing(allowed, true, '--allowed', target);

  const podName = `${name.slice(0, 40)}-egress-probe-${randomBytes(4).toString('hex')}`;
  const key = { namespace, name: podName };
  await client.create(
    resources.pods,
    probePod({
      name,
      namespace,
      podName,
      image: session.option('image') ?? defaultImage,
      ...(denied !== undefined && { denied }),
      ...(allowed !== undefined && { allowed }),
    }),
  );
  try {
    stdout(`Pod ${podName} tries a destination that is allowed and one that isn't.`);
    let result: EgressProbe | undefined;
    const hasEnded = await follow(session, async () => {
      const pod = await client.get(resources.pods, key);
      result = pod === undefined ? undefined : resultOf(pod);
      return pod === undefined || result !== undefined;
    });
    if (result === undefined) {
      stderr(
        hasEnded
          ? `Error: pod ${podName} is gone before it has ended.`
          : `Error: pod ${podName} has not ended in time. Does its image start? Name another one by --image: its entry point is node.`,
      );
      return exit.failed;
    }
    let status = 'Unknown';
    const isKnown = await follow(session, async () => {
      const now = await client.get(resources.workflows, { namespace, name });
      const finding = conditionOf(now?.status?.conditions, 'EgressEnforced');
      if (finding === undefined || !isDeepStrictEqual(now?.status?.egressProbe, result)) {
        return false;
      }
      status = finding.status;
      stdout(`EgressEnforced ${finding.status} (${finding.reason}): ${finding.message}`);
      return true;
    });
    if (!isKnown) stderr('Error: no operator has taken notice of the result. Does it run?');
    return isKnown && status === 'True' ? exit.ok : exit.failed;
  } finally {
    await client.delete(resources.pods, key);
  }
}

/** Where the API server's Service is; `undefined` where the user may not see it. */
async function apiServer({ client }: Session): Promise<string | undefined> {
  try {
    const service = await client.get(resources.services, {
      namespace: 'default',
      name: 'kubernetes',
    });
    const address = service?.spec?.clusterIPs?.[0];
    return address === undefined
      ? undefined
      : `${address}:${service?.spec?.ports?.[0]?.port ?? 443}`;
  } catch (error) {
    if (isForbidden(error)) return undefined;
    throw error;
  }
}

/** @throws UsageError where the policies decide the other way, or the destination can't be read */
function refuseWhereItProvesNothing(
  destination: string | undefined,
  isMeantToPass: boolean,
  option: string,
  {
    namespace,
    name,
    policies,
  }: { namespace: string; name: string; policies: readonly NetworkPolicy[] },
): void {
  if (destination === undefined) return;
  const end = destination.lastIndexOf(':');
  const address = destination.slice(0, Math.max(end, 0)).replace(/^\[(.*)\]$/, '$1');
  const port = Number(destination.slice(end + 1));
  if (isIP(address) === 0 || !Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new UsageError(`${option} takes an address and a port, such as 203.0.113.10:443`);
  }
  const passes = mayConnect(
    policies,
    { namespace, labels: probeLabels(name) },
    { other: { address }, protocol: 'TCP', port },
  );
  if (passes === isMeantToPass) return;
  throw new UsageError(
    isMeantToPass
      ? `no policy allows ${destination}: name a destination of the allowlist by ${option}`
      : `a policy allows ${destination}, so that to reach it proves nothing: name a destination that none allows by ${option}`,
  );
}
