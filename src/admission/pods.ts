import { maxTokenSeconds } from '../api/automation-identity.ts';
import { GROUP, label, secretPrefix } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { hasLabel, isManaged, labelOf } from './cel.ts';
import { mutating, rule, validating, type AdmissionObject } from './policies.ts';

/**
 * Seconds that a pod of an identity may ask for before it is killed. The operator deletes with a
 * shorter one; without it (evicted, deleted by hand, operator down), a pod may go on for as long as
 * it asked.
 */
const maxGraceSeconds = 300;

/** Longest value of a label. */
const maxLabelLength = 63;

const serviceAccountName = `object.spec.?serviceAccountName.orValue('')`;
const isCreate = `(request.operation == 'CREATE')`;

const podWrites = [
  rule(resources.pods, ['CREATE']),
  rule(resources.pods, ['UPDATE'], 'ephemeralcontainers'),
];

/**
 * Containers of all three kinds; of a pod that stands already, only those that can come to it. The
 * kinds differ, and one expression is checked for all.
 */
const containers = `((${isCreate} ? dyn(object.spec.containers) + dyn(object.spec.?initContainers.orValue([])) : dyn([])) + dyn(object.spec.?ephemeralContainers.orValue([])))`;

/** Volumes; those of a pod that stands already don't change. */
const volumes = `(${isCreate} ? dyn(object.spec.?volumes.orValue([])) : dyn([]))`;

/** What holds for pods in guarded namespaces, engaged or not. */
export function podPolicies(): AdmissionObject[] {
  return [...writeLabel(), ...keepLabels(), ...ownSecrets(), ...insideNode()];
}

function writeLabel(): AdmissionObject[] {
  return mutating({
    name: 'pod-label',
    description: 'Labels a pod with the name of the ServiceAccount that it runs as.',
    rules: [rule(resources.pods, ['CREATE'])],
    conditions: {
      named: `${serviceAccountName} != '' && ${serviceAccountName}.size() <= ${maxLabelLength}`,
    },
    patchType: 'ApplyConfiguration',
    expression: `Object{metadata: Object.metadata{labels: {'${label.identity}': object.spec.serviceAccountName}}}`,
  });
}

/** The status of a pod carries labels too: whoever may write it could change them there. */
function keepLabels(): AdmissionObject[] {
  const labels = (of: string): string => `${of}.metadata.?labels.orValue({})`;
  const isOwn = `k.startsWith('${GROUP}/')`;
  const isWritten = `k == '${label.identity}' && ${labels('object')}[?k].orValue('') == ${serviceAccountName}`;
  const kept = `!${isOwn} || ${labels('object')}[?k] == ${labels('oldObject')}[?k]`;
  return validating({
    name: 'pod-labels',
    description: 'The labels of a pod by which guardrails find it are true, and stay.',
    rules: [rule(resources.pods, ['CREATE', 'UPDATE']), rule(resources.pods, ['UPDATE'], 'status')],
    validations: [
      {
        expression: `!${isCreate} || !${hasLabel('object', label.identity)} || ${labelOf('object', label.identity)} == ${serviceAccountName}`,
        message: `the label ${label.identity} is the name of the ServiceAccount that a pod runs as: leave it out`,
      },
      {
        // Where admission writes no labels, whoever creates the pod does.
        expression: `!${isCreate} || ${hasLabel('object', label.identity)} || !${isManaged(serviceAccountName)}`,
        message: `a pod of an identity carries its name in the label ${label.identity}`,
        messageExpression: `'a pod of an identity carries its name: add the label ${label.identity}: ' + ${serviceAccountName} + ' to the pod template'`,
      },
      {
        expression: `${isCreate} || (${labels('object')}.all(k, ${kept} || (${isWritten})) && ${labels('oldObject')}.all(k, ${kept} || (${isWritten})))`,
        message: `labels of a pod that begin with ${GROUP}/ don't change; leave them alone`,
      },
    ],
  });
}

/** By name alone: whose a Secret is can be read from it. */
function ownSecrets(): AdmissionObject[] {
  const isForeign = (name: string): string =>
    `(${name}.startsWith('${secretPrefix}') && !${name}.startsWith(variables.own))`;
  const env = isForeign(`e.?valueFrom.?secretKeyRef.?name.orValue('')`);
  const envFrom = isForeign(`e.?secretRef.?name.orValue('')`);
  const container = `(c.?env.orValue([]).exists(e, ${env}) || c.?envFrom.orValue([]).exists(e, ${envFrom}))`;
  const volume = [
    ...secretFields.map((path) => isForeign(`v.?${path.join('.?')}.orValue('')`)),
    `v.?projected.?sources.orValue([]).exists(s, ${isForeign(`s.?secret.?name.orValue('')`)})`,
  ].join(' || ');
  const explain = (what: string): string =>
    `${what} + ': a Secret ${secretPrefix}IDENTITY.NAME is for pods that run as that identity, and this one runs as ' + ${serviceAccountName} + '. Set its serviceAccountName to the identity, or use a Secret of your own'`;
  const message = `a Secret ${secretPrefix}IDENTITY.NAME is for pods that run as that identity`;
  return validating({
    name: 'pod-secrets',
    description: "Only pods that run as an identity use the identity's Secrets.",
    rules: podWrites,
    variables: {
      own: `'${secretPrefix}' + ${serviceAccountName} + '.'`,
      containers: `${containers}.filter(c, ${container}).map(c, c.name)`,
      volumes: `${volumes}.filter(v, ${volume}).map(v, v.name)`,
      imagePullSecrets: `(${isCreate} ? dyn(object.spec.?imagePullSecrets.orValue([])) : dyn([])).map(s, s.?name.orValue('')).filter(s, ${isForeign('s')})`,
    },
    validations: [
      {
        expression: 'variables.containers.size() == 0',
        message,
        messageExpression: explain(`'container ' + variables.containers[0]`),
      },
      {
        expression: 'variables.volumes.size() == 0',
        message,
        messageExpression: explain(`'volume ' + variables.volumes[0]`),
      },
      {
        expression: 'variables.imagePullSecrets.size() == 0',
        message,
        messageExpression: explain(`'imagePullSecret ' + variables.imagePullSecrets[0]`),
      },
    ],
  });
}

/** Where a volume names a Secret, as of Kubernetes 1.36 (`core/v1` VolumeSource). */
const secretFields: readonly (readonly string[])[] = [
  ['secret', 'secretName'],
  ['azureFile', 'secretName'],
  ['csi', 'nodePublishSecretRef', 'name'],
  ...['cephfs', 'cinder', 'flexVolume', 'iscsi', 'rbd', 'scaleIO', 'storageos'].map((kind) => [
    kind,
    'secretRef',
    'name',
  ]),
];

/** Where clients of the Kubernetes API look for a token by themselves. */
const tokenPath = '/var/run/secrets/kubernetes.io/serviceaccount';

/** What to write in the place of the volume that the API server would add. */
const tokenVolume =
  'a projected volume of the sources serviceAccountToken: {path: token, expirationSeconds: 3600}, configMap: {name: kube-root-ca.crt} and downwardAPI (metadata.namespace as namespace)';

/** A pod that reaches its node reaches every other pod there, and what no guardrail sees. */
function insideNode(): AdmissionObject[] {
  const host = ['hostNetwork', 'hostPID', 'hostIPC']
    .map((field) => `object.spec.?${field}.orValue(false)`)
    .join(' || ');
  // A Windows host process needs hostNetwork, which is refused.
  const isPrivileged = 'c.?securityContext.?privileged.orValue(false)';
  const asksForLong = `v.?projected.?sources.orValue([]).exists(s, s.?serviceAccountToken.?expirationSeconds.orValue(0) > ${maxTokenSeconds})`;
  const refuse = (
    breaks: string,
    message: string,
  ): { expression: string; message: string; messageExpression: string } => ({
    expression: `!(${breaks}) || !variables.managed`,
    message,
    messageExpression: `'${message}; this one runs as the AutomationIdentity ' + ${serviceAccountName}`,
  });
  return validating({
    name: 'identity-pods',
    description: 'Pods of an identity stay inside: off their node, unprivileged, and soon gone.',
    rules: podWrites,
    variables: {
      managed: isManaged(serviceAccountName),
      containers,
      volumes,
    },
    validations: [
      refuse(
        `${isCreate} && (${host})`,
        'a pod of an identity has no hostNetwork, hostPID or hostIPC: take them out',
      ),
      refuse(
        'variables.volumes.exists(v, has(v.hostPath))',
        'a pod of an identity has no hostPath volume: use a PersistentVolumeClaim or an emptyDir',
      ),
      refuse(
        `variables.containers.exists(c, ${isPrivileged})`,
        'a pod of an identity has no privileged container: take securityContext.privileged out',
      ),
      refuse(
        `${isCreate} && object.spec.?terminationGracePeriodSeconds.orValue(30) > ${maxGraceSeconds}`,
        `a pod of an identity ends within ${maxGraceSeconds} s, so that stopping it does: lower terminationGracePeriodSeconds`,
      ),
      refuse(
        `${isCreate} && object.spec.?automountServiceAccountToken.orValue(false)`,
        `a pod of an identity mounts no token unasked, which the API server would extend to a year: take automountServiceAccountToken out, and where the pod uses the Kubernetes API, mount ${tokenVolume} at ${tokenPath}`,
      ),
      refuse(
        `variables.volumes.exists(v, ${asksForLong})`,
        `tokens of an identity live at most ${maxTokenSeconds} s: lower expirationSeconds of the projected volume`,
      ),
    ],
  });
}
