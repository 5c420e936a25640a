/**
 * Usage: node test/operator/rights-check.ts FOLDER
 *
 * FOLDER holds the audit logs of a whole run of the integration tests. Ends with 1, and names each,
 * where the operator may do what it didn't do, or has no reason to.
 */
import { GROUP } from '../../src/api/names.ts';
import { admissionParts } from '../../src/admission/index.ts';
import {
  anchorsRole,
  leaderElectionRole,
  operatorRole,
  probeRole,
} from '../../src/install/rbac.ts';
import { recordedRights, rightsOf } from './rights.ts';

/** What a run may well not use, with the reason for which it is granted. */
const rare: readonly { right: RegExp; reason: string }[] = [
  {
    right: /^operator: get (roles|rolebindings|networkpolicies)\./,
    reason: 'a write that met a conflict, or what was there before: read afresh',
  },
  {
    right: /^operator: get (deployments|statefulsets|daemonsets|replicasets|jobs|cronjobs)\./,
    reason: 'a pause or a restore whose cache is behind: read afresh',
  },
  {
    right: /^operator: delete approvals\./,
    reason: 'decisions that count no more, beyond the last twenty of a Workflow',
  },
  {
    right: /^operator: delete jobs\.batch$/,
    reason: 'Jobs of rotation hooks that nobody needs any more, some time after their end',
  },
  {
    right: /^probe: create jobs\.batch$/,
    reason: 'the right to create Jobs of hooks, which holds everywhere, answers first',
  },
  {
    right: /^operator: delete workflowrevisions\./,
    reason: 'revisions beyond those that are kept',
  },
  {
    right: /^evidence: (get|list) configmaps$/,
    reason: 'what may be granted to identities holds it too, until an administrator narrows that',
  },
  {
    right: /^evidence: delete configmaps$/,
    reason: 'anchors that are older than the evidence that is kept',
  },
];

/** Of Kubernetes and ours. Kinds of other projects are in a run as far as a test brings them. */
const ownGroups = new Set([
  GROUP,
  '',
  'admissionregistration.k8s.io',
  'apps',
  'authentication.k8s.io',
  'authorization.k8s.io',
  'batch',
  'coordination.k8s.io',
  'discovery.k8s.io',
  'networking.k8s.io',
  'rbac.authorization.k8s.io',
]);

/** Verbs that no request has: admission policies ask for them. */
const askedByAdmission = new Set(
  [...JSON.stringify(admissionParts()).matchAll(/\.check\('([a-z-]+)'\)/g)].map(([, verb]) => verb),
);

function isExplained(right: string): boolean {
  const [, verb, resource = ''] = /^[a-z-]+: (\S+) (\S+)$/.exec(right) ?? [];
  return (
    askedByAdmission.has(verb) ||
    !ownGroups.has(groupOf(resource)) ||
    rare.some((known) => known.right.test(right))
  );
}

/** @param resource as in `deployments.apps` */
function groupOf(resource: string): string {
  return resource.split('.').slice(1).join('.');
}

const [folder] = process.argv.slice(2);
if (folder === undefined) {
  console.error('Usage: node test/operator/rights-check.ts FOLDER');
  process.exitCode = 2;
} else {
  const granted = rightsOf([operatorRole, leaderElectionRole, anchorsRole, probeRole]);
  const used = await recordedRights(folder);
  const surplus = [...granted].filter((right) => !used.has(right) && !isExplained(right));
  for (const right of surplus) console.log(`granted, and never used: ${right}`);
  for (const { right } of rare) {
    if ([...granted].some((one) => right.test(one))) continue;
    console.log(`explained, and not granted: ${right.source}`);
    process.exitCode = 1;
  }
  const count = [...granted].filter((right) => used.has(right)).length;
  console.log(`${granted.size} permissions, of which the run used ${count}`);
  if (surplus.length > 0) process.exitCode = 1;
}
