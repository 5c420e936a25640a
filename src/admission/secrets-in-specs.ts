import { anyCredential } from '../api/credential-formats.ts';
import { annotation, GROUP } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { workloadResources } from '../api/workload.ts';
import { byClusterItself, changesAnnotation, hasAnnotation, isUpdate } from './cel.ts';
import { rule, validating, type AdmissionObject } from './policies.ts';

const { pods, cronJobs, workflows } = resources;
const { allowSecretInSpec } = annotation;

/**
 * Characters of one object that are looked through: a regular expression costs by the length of the
 * text, and two of them have to fit into what an expression may cost. What is longer, the operator finds in targets.
 */
export const lookedThrough = 30_000;

const isCronJob = `request.resource.resource == '${cronJobs.plural}'`;
const isPod = `request.resource.resource == '${pods.plural}'`;

/** Expressions: the pod, or the pod template. */
const podOf = (of: string): string =>
  `(${isPod} ? dyn(${of}) : ${isCronJob} ? dyn(${of}).spec.jobTemplate.spec.template : dyn(${of}).spec.template)`;
const specOf = (of: string): string => `${podOf(of)}.spec`;

const containersOf = (of: string): string =>
  `(${specOf(of)}.containers + ${specOf(of)}.?initContainers.orValue([]) + ${specOf(of)}.?ephemeralContainers.orValue([]))`;

/** Expression: everything that a credential is written into by mistake, as one text. */
const textOf = (of: string): string =>
  `(${containersOf(of)}.map(c, (c.?env.orValue([]).map(e, e.?value.orValue('')) + c.?command.orValue([]) + c.?args.orValue([])).join(' ')).join(' ') + ' ' + ${podOf(of)}.?metadata.?annotations.orValue({}).map(k, ${podOf(of)}.metadata.annotations[k]).join(' '))`;

/** Expression: whether there is a credential of a known format in it. */
const leaks = (of: string): string =>
  `[${textOf(of)}].exists(t, t.size() <= ${lookedThrough} && t.matches('${anyCredential}'))`;

/** Expression: what it runs as. */
const accountOf = (of: string): string => `${specOf(of)}.?serviceAccountName.orValue('default')`;

const mayAllow = `authorizer.group('${GROUP}').resource('${workflows.plural}').namespace(request.namespace).name(${accountOf('object')}).check('allow-secret-in-spec').allowed()`;

const envNames = `${containersOf('object')}.map(c, c.?env.orValue([]).filter(e, e.?value.orValue('').size() <= ${lookedThrough} && e.?value.orValue('').matches('${anyCredential}')).map(e, 'env ' + e.name + ' of container ' + c.name).join(', ')).filter(t, t != '').join(', ')`;

/**
 * Credentials of known formats don't get into specs, where everybody who may look at a workload
 * sees them. A value is in no message.
 */
export function secretInSpecPolicies(): AdmissionObject[] {
  const all = Object.values(workloadResources);
  return [
    ...validating({
      name: 'secret-in-spec',
      description: 'No credential of a known format is written into a workload or a pod.',
      rules: [
        ...all.map((resource) => rule(resource, ['CREATE', 'UPDATE'])),
        rule(pods, ['CREATE']),
        rule(pods, ['UPDATE'], 'ephemeralcontainers'),
      ],
      conditions: {
        author: `!${byClusterItself}`,
        'not-allowed': `!${hasAnnotation('object', allowSecretInSpec)}`,
        // What stands there already must lock nothing: a kill writes to it.
        leaks: `${leaks('object')} && !(${isUpdate} && ${leaks('oldObject')})`,
      },
      validations: [
        {
          expression: 'false',
          message: `something in env, args, command or annotations looks like a credential, which everybody who may see the object would read: put it into a Secret, and reference that by valueFrom.secretKeyRef. Rotate it, since it was sent in the open`,
          messageExpression: `'something looks like a credential' + [${envNames}].map(n, n == '' ? ' (in args, command or annotations)' : ' (' + (n.size() > 300 ? n.substring(0, 300) + '…' : n) + ')')[0] + ', which everybody who may see the object would read: put it into a Secret, and reference that by valueFrom.secretKeyRef. Rotate it, since it was sent in the open. If it is none, somebody with the verb allow-secret-in-spec on the Workflow sets ${allowSecretInSpec} to why'`,
        },
      ],
    }),
    ...validating({
      name: 'secret-in-spec-allowed',
      description: 'What looks like a credential is allowed by who may.',
      rules: [
        ...all.map((resource) => rule(resource, ['CREATE', 'UPDATE'])),
        rule(pods, ['CREATE', 'UPDATE']),
      ],
      conditions: {
        author: `!${byClusterItself}`,
        // It was allowed of the Workflow that it ran as then.
        allows: `${hasAnnotation('object', allowSecretInSpec)} && (!${isUpdate} || ${changesAnnotation(allowSecretInSpec)} || ${accountOf('object')} != ${accountOf('oldObject')})`,
      },
      validations: [
        {
          expression: mayAllow,
          message: `${allowSecretInSpec} takes the verb allow-secret-in-spec on the Workflow that it runs as (ClusterRole automation-guardrails-secret-allower)`,
        },
      ],
    }),
  ];
}
