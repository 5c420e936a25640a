import type { Finding } from '../../api/conditions.ts';
import { label } from '../../api/names.ts';
import type { KubeObject, Pod } from '../../api/objects.ts';
import type { EgressProbe } from '../../api/workflow.ts';

/** Longest time for which a result counts: a cluster gets another network plug-in one day. */
export const probeValidMs = 7 * 24 * 3_600_000;

export interface ProbeRequest {
  /** Of the Workflow. */
  name: string;
  namespace: string;
  /** Of the pod. */
  podName: string;
  /** An image whose entry point is Node.js. */
  image: string;
  /** `address:port` that no policy allows; default: the API server's Service. */
  denied?: string;
  /** `address:port` that a policy allows; default: the cluster's DNS. */
  allowed?: string;
}

/**
 * Tries both destinations by TCP and writes `denied=… allowed=…` as the container's last words. A
 * connection that is refused was delivered, too. Some network plug-ins enforce a second or two after
 * a pod has started; the first wait is for them.
 */
export const probeScript = `
const { readFileSync, writeFileSync } = require('node:fs');
const { connect } = require('node:net');
const { DENIED, ALLOWED, WAIT = '10000', LOG = '/dev/termination-log' } = process.env;
const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = process.env;
const dns = () => /^nameserver\\s+(\\S+)/m.exec(readFileSync('/etc/resolv.conf', 'utf8'))?.[1];
const reach = (to) =>
  new Promise((resolve) => {
    const end = to.lastIndexOf(':');
    const socket = connect({ host: to.slice(0, end).replace(/^\\[|\\]$/g, ''), port: Number(to.slice(end + 1)) });
    const done = (result) => { socket.destroy(); resolve(result); };
    socket.setTimeout(3000, () => done('failed'));
    socket.on('connect', () => done('reached'));
    socket.on('error', ({ code }) => done(code === 'ECONNREFUSED' ? 'reached' : 'failed'));
  });
setTimeout(async () => {
  const denied = await reach(DENIED ?? host + ':' + port);
  const allowed = await reach(ALLOWED ?? dns() + ':53');
  writeFileSync(LOG, 'denied=' + denied + ' allowed=' + allowed);
}, Number(WAIT));
`;

/** A pod of the automation that tries whether its NetworkPolicies are enforced, and ends. */
export function probePod(request: ProbeRequest): Pod {
  const { name, namespace, podName, image, denied, allowed } = request;
  const env = Object.entries({ DENIED: denied, ALLOWED: allowed }).flatMap(([key, value]) =>
    value === undefined ? [] : [{ name: key, value }],
  );
  const spec = {
    serviceAccountName: name,
    automountServiceAccountToken: false,
    restartPolicy: 'Never',
    activeDeadlineSeconds: 120,
    terminationGracePeriodSeconds: 5,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: 65_532,
      seccompProfile: { type: 'RuntimeDefault' },
    },
    containers: [
      {
        name: 'probe',
        image,
        args: ['-e', probeScript],
        env,
        resources: { requests: { cpu: '10m', memory: '64Mi' }, limits: { memory: '128Mi' } },
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        },
      },
    ],
  };
  return { metadata: { name: podName, namespace, labels: probeLabels(name) }, spec };
}

/** Labels of such a pod, as policies select by them. */
export function probeLabels(name: string): Record<string, string> {
  return { [label.identity]: name, [label.egressProbe]: 'true' };
}

/** What a pod that tried has found; `undefined` while it hasn't ended, and of other pods. */
export function resultOf(pod: KubeObject): EgressProbe | undefined {
  if (pod.metadata.labels?.[label.egressProbe] !== 'true') return undefined;
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- as pods are stored
  const { status } = pod as Pod & {
    status?: {
      containerStatuses?: {
        state?: { terminated?: { message?: string; finishedAt?: string } };
      }[];
    };
  };
  const { message = '', finishedAt } = status?.containerStatuses?.[0]?.state?.terminated ?? {};
  if (finishedAt === undefined || Number.isNaN(Date.parse(finishedAt))) return undefined;
  const words = /^denied=(reached|failed) allowed=(reached|failed)$/.exec(message);
  return {
    time: finishedAt,
    denied: words?.[1] === 'reached' ? 'Reached' : words === null ? 'Unknown' : 'Failed',
    allowed: words?.[2] === 'reached' ? 'Reached' : words === null ? 'Unknown' : 'Failed',
  };
}

/** The latest of a result that is known and those of pods; times are whole seconds. */
export function latestOf(
  known: EgressProbe | undefined,
  pods: readonly Pick<Pod, 'egressProbe'>[],
): EgressProbe | undefined {
  const found = pods.flatMap(({ egressProbe }) => egressProbe ?? []);
  return [...(known === undefined ? [] : [known]), ...found].reduce<EgressProbe | undefined>(
    (latest, one) =>
      latest === undefined || Date.parse(one.time) >= Date.parse(latest.time) ? one : latest,
    undefined,
  );
}

/** Milliseconds for which a result still counts; `undefined` where there is none that does. */
export function validForMs(probe: EgressProbe | undefined, now: number): number | undefined {
  if (probe === undefined) return undefined;
  const left = Date.parse(probe.time) + probeValidMs - now;
  return left > 0 ? left : undefined;
}

/** Whether the cluster holds to the policies: nobody can tell from what the API server stores. */
export function enforcedFinding(
  name: string,
  probe: EgressProbe | undefined,
  now: number,
): Finding {
  const type = 'EgressEnforced';
  const how = `To try: kubectl guardrails probe ${name}`;
  if (probe === undefined || validForMs(probe, now) === undefined) {
    const last =
      probe === undefined
        ? 'Nobody has tried a connection'
        : `Nobody has tried a connection since ${probe.time}`;
    const message = `NetworkPolicies are enforced by the cluster's network plug-in, or not at all. ${last}, so it isn't known. ${how}`;
    return { type, status: 'Unknown', reason: 'NotProbed', message };
  }
  if (probe.denied === 'Reached') {
    const message = `A pod of it reached a destination that no policy allows (${probe.time}): the cluster's network plug-in doesn't enforce NetworkPolicies, or not in time.`;
    return { type, status: 'False', reason: 'NotEnforced', message };
  }
  if (probe.denied === 'Failed' && probe.allowed === 'Reached') {
    const message = `A pod of it reached a destination that is allowed, and not one that isn't (${probe.time}).`;
    return { type, status: 'True', reason: 'Enforced', message };
  }
  const message = `The probe of ${probe.time} reached neither a destination that is allowed nor one that isn't, or didn't say: that proves nothing. ${how}`;
  return { type, status: 'Unknown', reason: 'ProbeInconclusive', message };
}
