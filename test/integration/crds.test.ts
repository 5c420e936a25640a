import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { loadAll } from 'js-yaml';
import { Agent, request } from 'undici';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AutomationIdentity } from '../../src/api/automation-identity.ts';
import { customResourceDefinitions } from '../../src/api/crd.ts';
import { parseDuration } from '../../src/api/duration.ts';
import { kinds } from '../../src/api/kinds.ts';
import { API_VERSION } from '../../src/api/names.ts';
import { schedulePattern } from '../../src/api/schedule.ts';
import {
  allowedOfRefused,
  anyPermission,
  identityName,
  unlimited,
} from '../../src/guardrails/identity/permissions.testing.ts';
import { planIdentity } from '../../src/guardrails/identity/plan.ts';
import { refusalOf } from '../../src/guardrails/identity/refused.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitUntilEstablished } from '../operator/cluster.ts';
import { path as pathOf } from './admission/api.ts';

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));
const namespace = 'finance';

let controlPlane: ControlPlane;
let agent: Agent;
/** Everything that kubectl said when it was refused. */
const refusals: string[] = [];

beforeAll(async () => {
  controlPlane = await startControlPlane();
  agent = new Agent({ connect: { ca: controlPlane.certificateAuthority } });
  await kubectl(['apply', '--server-side', '-k', path.join(root, 'config/crds')]);
  await waitUntilEstablished(controlPlane, ['crd', '--all']);
  await kubectl(['create', 'namespace', namespace]);
});

afterAll(async () => {
  await agent?.close();
  await controlPlane?.stop();
});

async function kubectl(args: readonly string[], input?: string): Promise<string> {
  const { stdout, stderr, code } = await controlPlane.kubectl(args, {
    ...(input !== undefined && { input }),
  });
  if (code !== 0) throw new Error(`kubectl ${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** What the API server says of an object, new or changed, and whether it took it. Nothing is stored. */
async function apply(object: object): Promise<{ accepted: boolean; says: string }> {
  const { kind, metadata } = object as { kind: string; metadata: { name: string } };
  const definition = kinds.find(({ resource }) => resource.kind === kind);
  if (definition === undefined) throw new Error(`none of our kinds: ${kind}`);
  const url = pathOf(definition.resource, { namespace });
  const created = await send('POST', url, object);
  const { statusCode, says } =
    created.statusCode === 409 ? await send('PATCH', `${url}/${metadata.name}`, object) : created;
  return { accepted: statusCode < 300, says };
}

/** Asks the API server itself, which is a hundred times faster than kubectl. */
async function send(
  method: 'POST' | 'PATCH',
  apiPath: string,
  object: object,
): Promise<{ statusCode: number; says: string }> {
  const query = 'dryRun=All&fieldValidation=Strict';
  const { statusCode, body } = await request(`${controlPlane.server}${apiPath}?${query}`, {
    method,
    dispatcher: agent,
    headers: {
      authorization: `Bearer ${controlPlane.adminToken}`,
      'content-type': method === 'PATCH' ? 'application/merge-patch+json' : 'application/json',
    },
    body: JSON.stringify(object),
  });
  const answer = (await body.json()) as { message?: string };
  return { statusCode, says: answer.message ?? '' };
}

async function wouldAccept(apiPath: string, object: object): Promise<boolean> {
  const { statusCode, says } = await send('POST', apiPath, object);
  if (statusCode === 201) return true;
  if (statusCode === 422) return false;
  throw new Error(`${statusCode}: ${says}`);
}

/** Where no object of the other tests has a name already. */
const ownPath = `/apis/${API_VERSION}/namespaces/default`;

const target = { group: 'apps', kind: 'Deployment', name: 'invoice-poster' };

function workflow(spec: object = {}, name = 'invoice-posting'): object {
  return {
    apiVersion: API_VERSION,
    kind: 'Workflow',
    metadata: { name },
    spec: { targets: [target], ...spec },
  };
}

function egress(...entries: object[]): object {
  return workflow({ egress: entries.map((entry) => ({ reason: 'A test.', ...entry })) });
}

function ingress(...entries: object[]): object {
  return workflow({ ingress: entries.map((entry) => ({ reason: 'A test.', ...entry })) });
}

function identity(spec: object = {}, name = 'invoice-posting'): object {
  return { apiVersion: API_VERSION, kind: 'AutomationIdentity', metadata: { name }, spec };
}

function permission(rule: object): object {
  const sound = { apiGroups: [''], resources: ['configmaps'], verbs: ['get'], reason: 'A test.' };
  return identity({ permissions: [{ ...sound, ...rule }] });
}

function secret(fields: object): object {
  return identity({ secrets: [{ name: 'database', type: 'Password', ...fields }] });
}

function rotation(fields: object): object {
  return secret({ rotation: fields });
}

function token(fields: object): object {
  return identity({ tokens: [{ name: 'ci', audience: 'https://vault.example.com', ...fields }] });
}

function clusterKillSwitch(spec: object, name = 'prod'): object {
  return {
    apiVersion: API_VERSION,
    kind: 'ClusterKillSwitch',
    metadata: { name },
    spec: { reason: 'A test.', ...spec },
  };
}

function guardrailPolicy(spec: object, name = 'default'): object {
  return { apiVersion: API_VERSION, kind: 'GuardrailPolicy', metadata: { name }, spec };
}

function tier(rules: object): object {
  return guardrailPolicy({ tiers: [{ name: 'prod', ...rules }] });
}

function approval(spec: object = {}): object {
  const digest = '0123456789abcdef'.repeat(4);
  const sound = { workflow: 'invoice-posting', digest, decision: 'Approve', reason: 'A test.' };
  return {
    apiVersion: API_VERSION,
    kind: 'Approval',
    metadata: { name: 'decided' },
    spec: { ...sound, ...spec },
  };
}

function killSwitch(spec: object = {}, name = 'invoice-posting'): object {
  return {
    apiVersion: API_VERSION,
    kind: 'KillSwitch',
    metadata: { name },
    spec: { workflow: name, reason: 'Posts twice.', ...spec },
  };
}

describe('names', () => {
  const tooLong = 'a'.repeat(64);

  it.each([
    [
      'a Workflow',
      workflow({}, tooLong),
      'the name of a Workflow must be a DNS label of at most 63',
    ],
    ['an identity', identity({}, tooLong), 'the name of an AutomationIdentity must be a DNS label'],
    ['a KillSwitch', killSwitch({}, 'a.b'), 'workflow must be a DNS label'],
    ['a dotted Workflow', workflow({}, 'a.b'), 'lower-case letters, digits and'],
    ['a dotted identity', identity({}, 'a.b'), 'choose a shorter or simpler name'],
    ['the Workflow default', workflow({}, 'default'), "a Workflow can't be called 'default'"],
    ['the identity default', identity({}, 'default'), "an AutomationIdentity can't be called 'def"],
    ['the KillSwitch default', killSwitch({}, 'default'), "a workflow can't be called 'default'"],
    ['the Workflow namespace', workflow({}, 'namespace'), "'namespace' is reserved"],
  ])('refuses %s', refused);

  it.each([
    ['a name of 63 characters', workflow({}, 'a'.repeat(63))],
    ['a name that begins with a digit', identity({}, '3-way-match')],
  ])('takes %s', taken);
});

describe('targets', () => {
  const matchLabels = { app: 'invoice-poster' };

  it.each([
    [
      'a target with neither name nor selector',
      workflow({ targets: [{ group: 'apps', kind: 'Deployment' }] }),
      'a target needs either a name or a selector: write exactly one of the two',
    ],
    [
      'a target with both',
      workflow({ targets: [{ ...target, selector: { matchLabels } }] }),
      'a target needs either a name or a selector: write exactly one of the two',
    ],
    [
      'a Deployment of group batch',
      workflow({ targets: [{ ...target, group: 'batch' }] }),
      "group and kind of a target don't belong together",
    ],
    [
      'a CronJob of group apps',
      workflow({ targets: [{ ...target, kind: 'CronJob' }] }),
      "group and kind of a target don't belong together",
    ],
    [
      'a kind that is not stopped',
      workflow({ targets: [{ ...target, kind: 'ReplicationController' }] }),
      'supported values: "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"',
    ],
    ['no target', workflow({ targets: [] }), 'should have at least 1 items'],
    [
      'an empty name',
      workflow({ targets: [{ ...target, name: '' }] }),
      'the name of a target must be the name of a workload',
    ],
    [
      'a pattern as a name',
      workflow({ targets: [{ ...target, name: 'invoice-*' }] }),
      'to name several by their labels, write a selector',
    ],
    [
      'a name of 64 characters',
      workflow({ targets: [{ ...target, name: 'a'.repeat(64) }] }),
      'may not be more than 63',
    ],
    [
      'a selector that selects everything',
      workflow({ targets: [{ group: 'apps', kind: 'Deployment', selector: { matchLabels: {} } }] }),
      'an empty selector would select everything',
    ],
    [
      'a label key that is none',
      workflow({
        targets: [{ group: 'apps', kind: 'Deployment', selector: { matchLabels: { 'a b': 'c' } } }],
      }),
      'the keys of matchLabels must be label keys',
    ],
    [
      'a label value that is none',
      workflow({
        targets: [{ group: 'apps', kind: 'Deployment', selector: { matchLabels: { a: '-c' } } }],
      }),
      'the values of matchLabels must be label values',
    ],
  ])('refuses %s', refused);

  it.each([
    [
      'each kind',
      workflow({
        targets: [
          target,
          { group: 'apps', kind: 'StatefulSet', name: 'ledger' },
          { group: 'batch', kind: 'Job', name: 'backfill' },
          { group: 'batch', kind: 'CronJob', selector: { matchLabels } },
        ],
      }),
    ],
    ['a name with a dot', workflow({ targets: [{ ...target, name: 'poster.v2' }] })],
  ])('takes %s', taken);
});

describe('egress', () => {
  const cidr = '203.0.113.0/24';

  it.each([
    ['a text as cidr', egress({ cidr: 'erp.example.com' }), 'cidr must be an IPv4 or IPv6 network'],
    ['an address without a length', egress({ cidr: '203.0.113.10' }), "such as '203.0.113.10/32'"],
    ['a length over 32', egress({ cidr: '203.0.113.0/33' }), 'in CIDR notation'],
    ['an octet over 255', egress({ cidr: '203.0.256.0/24' }), 'in CIDR notation'],
    ['an IPv6 length over 128', egress({ cidr: '2001:db8::/129' }), 'in CIDR notation'],
    ['host bits', egress({ cidr: '10.0.0.1/8' }), 'has address bits beyond its prefix length'],
    ['IPv6 host bits', egress({ cidr: '2001:db8::1/64' }), "write the network's own address"],
    [
      'an exception that is none',
      egress({ cidr, except: ['x'] }),
      'an entry of except must be an IPv4',
    ],
    [
      'an exception with host bits',
      egress({ cidr, except: ['203.0.113.1/30'] }),
      'an entry of except has address bits beyond',
    ],
    [
      'an exception elsewhere',
      egress({ cidr, except: ['198.51.100.0/28'] }),
      'every entry of except must be a smaller network inside cidr',
    ],
    [
      'an exception as large as the network',
      egress({ cidr, except: [cidr] }),
      'every entry of except must be a smaller network inside cidr',
    ],
    [
      'an exception of the other family',
      egress({ cidr, except: ['2001:db8::/64'] }),
      'every entry of except must be a smaller network inside cidr',
    ],
    [
      'an exception without a cidr',
      egress({ namespace: 'databases', except: [cidr] }),
      'except needs cidr beside it',
    ],
    [
      'two peers in one entry',
      egress({ cidr, namespace: 'databases' }),
      'an egress entry names exactly one peer: either cidr, or namespace',
    ],
    ['no peer', egress({}), 'an egress entry names exactly one peer: either cidr, or namespace'],
    [
      'a podSelector beside a cidr',
      egress({ cidr, podSelector: { matchLabels: { app: 'x' } } }),
      'podSelector needs namespace beside it',
    ],
    [
      'a podSelector alone',
      egress({ podSelector: { matchLabels: { app: 'x' } } }),
      'podSelector needs namespace beside it',
    ],
    [
      'a podSelector that selects everything',
      egress({ namespace: 'databases', podSelector: { matchLabels: {} } }),
      'an empty selector would select everything',
    ],
    ['a namespace that is none', egress({ namespace: 'Data' }), 'namespace must be a DNS label'],
    ['port 0', egress({ cidr, ports: [{ port: 0 }] }), 'should be greater than or equal to 1'],
    [
      'port 65536',
      egress({ cidr, ports: [{ port: 65_536 }] }),
      'should be less than or equal to 65535',
    ],
    ['a port by name', egress({ cidr, ports: [{ port: 'https' }] }), 'must be of type integer'],
    [
      'an endPort below port',
      egress({ cidr, ports: [{ port: 443, endPort: 442 }] }),
      'endPort must not be below port',
    ],
    [
      'an endPort beyond 65535',
      egress({ cidr, ports: [{ port: 443, endPort: 70_000 }] }),
      'should be less than or equal to 65535',
    ],
    ['an empty list of ports', egress({ cidr, ports: [] }), 'should have at least 1 items'],
    [
      'an unknown protocol',
      egress({ cidr, ports: [{ port: 1, protocol: 'HTTP' }] }),
      'supported values: "TCP", "UDP", "SCTP"',
    ],
    ['a blank reason', egress({ cidr, reason: ' \n' }), 'reason must not be blank'],
    ['no reason', workflow({ egress: [{ cidr }] }), 'spec.egress[0].reason: Required value'],
    [
      'a field of tomorrow',
      egress({ url: 'https://erp.example.com' }),
      'unknown field "spec.egress[0].url"',
    ],
    ...[
      'api.example.com.',
      'API.example.com',
      'bücher.example',
      '203.0.113.10',
      '2001:db8::1',
      'localhost',
      'https://api.example.com',
      'api.example.com:443',
      'api_1.example.com',
      '-api.example.com',
      '*',
      '*.com',
      'a*.example.com',
      'api.*.example.com',
      '*.*.example.com',
      'erp.finance.svc',
      'erp.finance.svc.cluster.local',
    ].map((host): [string, object, string] => [
      `the host ${host}`,
      egress({ host }),
      'host must be a DNS name outside of the cluster in lower case',
    ]),
    [
      'a host of 254 characters',
      egress({ host: `${'a.'.repeat(125)}test` }),
      'may not be more than 253 bytes',
    ],
    ['a host beside a cidr', egress({ host: 'a.example', cidr }), 'names exactly one peer'],
    [
      'a wildcard to be looked up',
      egress({ host: '*.example.com', resolve: true }),
      "resolve needs host beside it, and one without '*'",
    ],
    ['a network to be looked up', egress({ cidr, resolve: true }), 'resolve needs host beside it'],
    ['a day as the end', egress({ cidr, expires: '2027-01-01' }), 'must be of type date-time'],
    ['every IPv4 address', egress({ cidr: '0.0.0.0/0' }), 'cidr is as good as anywhere'],
    ['every IPv6 address', egress({ cidr: '::/0' }), '/16 for IPv6'],
    ['half of the Internet', egress({ cidr: '128.0.0.0/1' }), 'cidr is as good as anywhere'],
    [
      'the metadata service',
      egress({ cidr: '169.254.169.254/32' }),
      'cidr contains the metadata address of a cloud',
    ],
    [
      'a network around the metadata service',
      egress({ cidr: '169.254.0.0/16', except: ['169.254.170.0/24'] }),
      'take it out by except',
    ],
    ['its IPv6 address', egress({ cidr: 'fd00:ec2::/32' }), 'cidr contains the metadata address'],
    ['a peer of no name', egress({ peer: 'Internet' }), 'supported values: "KubeAPI", "DNS"'],
    [
      'a named peer beside another one',
      egress({ peer: 'KubeAPI', cidr }),
      'an egress entry names exactly one peer',
    ],
    [
      'ports of a named peer that brings its own',
      egress({ peer: 'KubeAPI', ports: [{ port: 443 }] }),
      'bring their own ports: leave ports out',
    ],
    [
      'more entries than are allowed',
      egress(...Array.from({ length: 129 }, () => ({ cidr }))),
      'must have at most 128 items',
    ],
    ['ingress from nobody', ingress({}), 'an ingress entry names exactly one peer'],
    ['ingress from everybody', ingress({ cidr: '0.0.0.0/0' }), 'cidr is as good as anywhere'],
    ['ingress from the DNS', ingress({ peer: 'DNS' }), 'supported values: "KubeAPI"'],
  ])('refuses %s', refused);

  it.each([
    ['an address', egress({ cidr: '203.0.113.10/32', ports: [{ port: 443 }] })],
    ['an IPv6 network', egress({ cidr: '2001:db8::/32', except: ['2001:db8:1::/48'] })],
    ['exceptions', egress({ cidr: '10.0.0.0/8', except: ['10.1.0.0/16', '10.2.0.1/32'] })],
    ['a namespace', egress({ namespace: 'databases' })],
    [
      'pods of a namespace and a range of ports',
      egress({
        namespace: 'databases',
        podSelector: { matchLabels: { 'app.kubernetes.io/name': 'postgresql' } },
        ports: [{ port: 5432, endPort: 5432, protocol: 'TCP' }],
      }),
    ],
    ['named peers', egress({ peer: 'KubeAPI' }, { peer: 'DNS' }, { peer: 'SameNamespace' })],
    ['ports in the same namespace', egress({ peer: 'SameNamespace', ports: [{ port: 8080 }] })],
    ['an end', egress({ cidr, expires: '2027-01-01T00:00:00Z' })],
    [
      'a network without the metadata service',
      egress({ cidr: '169.254.0.0/16', except: ['169.254.169.254/32'] }),
    ],
    [
      'hosts',
      egress(
        { host: 'api.example.com', resolve: true, ports: [{ port: 443 }] },
        { host: '*.example.com' },
        { host: 'xn--bcher-kva.example' },
        { host: '3scale.example.co.uk', resolve: false },
        { host: `${'a.'.repeat(124)}test` },
      ),
    ],
    [
      'networks that overlap, and the same twice',
      egress({ cidr: '10.0.0.0/8' }, { cidr: '10.1.0.0/16' }, { cidr }, { cidr }),
    ],
    ['a namespace that does not exist, or not yet', egress({ namespace: 'of-tomorrow' })],
    ['no destination at all', workflow({ egress: [] })],
    [
      'as many entries as there may be',
      egress(...Array.from({ length: 128 }, (_, index) => ({ host: `h${index}.example.com` }))),
    ],
    ['the widest networks', egress({ cidr: '10.0.0.0/8' }, { cidr: '2600::/16' })],
    [
      'who may connect',
      ingress(
        { peer: 'SameNamespace' },
        { peer: 'KubeAPI', ports: [{ port: 8443 }] },
        { namespace: 'web', podSelector: { matchLabels: { app: 'front' } } },
      ),
    ],
  ])('takes %s', taken);
});

describe('permissions', () => {
  const secrets = { resources: ['secrets'] };

  it.each([
    ['* as a group', permission({ apiGroups: ['*'] }), "apiGroups must not contain '*'"],
    ['* as a resource', permission({ resources: ['*'] }), "resources must not contain '*'"],
    ['*/scale', permission({ resources: ['*/scale'] }), "resources must not contain '*'"],
    ['pods/*', permission({ resources: ['pods/*'] }), "resources must not contain '*'"],
    ['* as a verb', permission({ verbs: ['*'] }), "verbs must not contain '*'"],
    ['* as a name', permission({ resourceNames: ['*'] }), "resourceNames must not contain '*'"],
    ...[
      'escalate',
      'bind',
      'impersonate',
      'impersonate-on:user-info:list',
      'impersonate:user-info',
    ].map((verb): Refusal => [
      verb,
      permission({ verbs: [verb] }),
      "an automation is not granted 'escalate', 'bind' or 'impersonate'",
    ]),
    ['a verb in capitals', permission({ verbs: ['GET'] }), 'verbs are written in lower case'],
    ...[
      'pods/exec',
      'pods/attach',
      'pods/portforward',
      'pods/proxy',
      'pods/ephemeralcontainers',
      'services/proxy',
      'nodes/proxy',
      'serviceaccounts/token',
    ].map((resource): Refusal => [
      resource,
      permission({ resources: ['pods', resource], verbs: ['create'] }),
      'an automation is not granted exec, attach, port-forward, proxy, ephemeral containers or tokens',
    ]),
    ...[
      'rbac.authorization.k8s.io',
      'admissionregistration.k8s.io',
      'automationguardrails.dev',
    ].map((group): Refusal => [
      `writes on ${group}`,
      permission({ apiGroups: ['apps', group], resources: ['things'], verbs: ['get', 'patch'] }),
      'an automation may only get, list and watch objects of RBAC, of admission and of automationguardrails.dev',
    ]),
    ...['list', 'watch', 'deletecollection'].map((verb): Refusal => [
      `${verb} of secrets`,
      permission({ ...secrets, resourceNames: ['a'], verbs: [verb] }),
      "an automation is not granted 'list', 'watch' or 'deletecollection' of secrets",
    ]),
    ...['get', 'update', 'patch', 'delete'].map((verb): Refusal => [
      `${verb} of secrets without resourceNames`,
      permission({ ...secrets, verbs: [verb] }),
      'secrets need resourceNames, also to update, patch or delete them',
    ]),
    ...['namespaces', 'namespaces/status', 'namespaces/finalize'].map((resource): Refusal => [
      `writes on ${resource}`,
      permission({ resources: [resource], verbs: ['get', 'patch'] }),
      'an automation may only get, list and watch namespaces and networkpolicies',
    ]),
    [
      'writes on networkpolicies',
      permission({
        apiGroups: ['networking.k8s.io'],
        resources: ['ingresses', 'networkpolicies'],
        verbs: ['create'],
      }),
      'an automation may only get, list and watch namespaces and networkpolicies',
    ],
    [
      "another automation's credentials",
      permission({ ...secrets, resourceNames: ['tls', 'aid.other.database'] }),
      'an automation is not granted the credentials of another one',
    ],
    [
      'credentials of nobody',
      permission({ ...secrets, resourceNames: ['aid.'] }),
      'an automation is not granted the credentials of another one',
    ],
    ['no verb', permission({ verbs: [] }), 'should have at least 1 items'],
    ['no names', permission({ resourceNames: [] }), 'should have at least 1 items'],
    ['a blank reason', permission({ reason: '' }), 'reason must not be blank'],
  ])('refuses %s', refused);

  it.each([
    ['reading', permission({ verbs: ['get', 'list', 'watch'] })],
    [
      'secrets by name',
      permission({ ...secrets, resourceNames: ['tls'], verbs: ['get', 'update'] }),
    ],
    ['creating secrets', permission({ ...secrets, verbs: ['create'] })],
    [
      'its own credentials',
      permission({ ...secrets, resourceNames: ['aid.invoice-posting.database'] }),
    ],
    ['reading its namespace', permission({ resources: ['namespaces'] })],
    [
      'secrets of another group',
      permission({ ...secrets, apiGroups: ['vault.example.com'], verbs: ['list'] }),
    ],
    [
      'reading roles',
      permission({
        apiGroups: ['rbac.authorization.k8s.io'],
        resources: ['roles'],
        verbs: ['get', 'list'],
      }),
    ],
    [
      'scale',
      permission({ apiGroups: ['apps'], resources: ['deployments/scale'], verbs: ['patch'] }),
    ],
  ])('takes %s', taken);

  it('that it accepts are what the operator grants, and yield no Role with anything refused', async () => {
    let accepted = 0;
    let runs = 0;
    await fc.assert(
      fc.asyncProperty(anyPermission, async (one) => {
        const object = identity({ permissions: [one] }, identityName);
        const isAccepted = await wouldAccept(`${ownPath}/automationidentities`, object);
        runs += 1;
        accepted += isAccepted ? 1 : 0;
        expect(isAccepted).toBe(refusalOf(one, identityName) === undefined);
        const { metadata, spec } = object as unknown as AutomationIdentity;
        const { role } = planIdentity({ metadata, spec }, spec, {}, unlimited);
        expect(role !== undefined).toBe(isAccepted);
        if (isAccepted) expect(allowedOfRefused(role?.rules ?? [])).toEqual([]);
      }),
      { numRuns: 600 },
    );
    expect(accepted).toBeGreaterThan(runs / 20);
    expect(accepted).toBeLessThan(runs / 2);
  });
});

describe('generated secrets', () => {
  it.each([
    [
      'a name that is no label',
      secret({ name: 'data.base' }),
      'the name of a secret must be a DNS label',
    ],
    ['a name over 63', secret({ name: 'a'.repeat(64) }), 'may not be more than 63'],
    [
      'the same name twice',
      identity({ secrets: [1, 2].map(() => ({ name: 'database', type: 'Token' })) }),
      'Duplicate value: {"name":"database"}',
    ],
    ['an unknown type', secret({ type: 'Key' }), 'supported values: "Password", "Token", "Ba'],
    [
      'a BasicAuth without username',
      secret({ type: 'BasicAuth' }),
      'a secret of the type BasicAuth needs username',
    ],
    ['a username of a password', secret({ username: 'x' }), 'and no other has one'],
    [
      'a colon in the username',
      secret({ type: 'BasicAuth', username: 'a:b' }),
      "username must be printable ASCII without ':'",
    ],
    [
      'characters of a token',
      secret({ type: 'Token', characters: { digits: 1 } }),
      'characters belong to the types Password and BasicAuth',
    ],
    [
      'more characters than the length',
      secret({ length: 16, characters: { digits: 9, uppercase: 8 } }),
      'characters ask for more than length',
    ],
    [
      'more characters than the length that is not given',
      secret({ characters: { digits: 33 } }),
      'characters ask for more than length, which is 32 if absent',
    ],
    [
      'a letter as symbol',
      secret({ characters: { symbolSet: '!a' } }),
      'symbolSet must consist of printable ASCII characters',
    ],
    [
      'an umlaut as symbol',
      secret({ characters: { symbolSet: 'ä' } }),
      'symbolSet must consist of printable ASCII characters',
    ],
    [
      'symbols out of none',
      secret({ characters: { symbols: 1, symbolSet: '' } }),
      'symbols are asked for, and symbolSet has none',
    ],
    [
      'a length of a key pair',
      secret({ type: 'SSHKeyPair', length: 64 }),
      'length belongs to the types Password, Token and BasicAuth',
    ],
    [
      'an Existing without secretName',
      secret({ type: 'Existing' }),
      'a secret of the type Existing needs secretName',
    ],
    ['a secretName of a password', secret({ secretName: 'x' }), 'and no other has one'],
    [
      'an Existing that the operator keeps',
      secret({ type: 'Existing', secretName: 'aid.other.database' }),
      'secretName must be the name of a Secret that somebody else keeps',
    ],
    [
      'an overlap of an Existing',
      secret({ type: 'Existing', secretName: 'x', rotation: { every: '24h', overlap: '1h' } }),
      "the rotation of an Existing secret is somebody else's",
    ],
    [
      'a schedule of an Existing',
      secret({ type: 'Existing', secretName: 'x', rotation: { schedule: '0 3 * * *' } }),
      "the rotation of an Existing secret is somebody else's",
    ],
    ['a short value', secret({ length: 15 }), 'should be greater than or equal to 16'],
    ['a long value', secret({ length: 257 }), 'should be less than or equal to 256'],
    [
      'a hook of an Existing',
      secret({
        type: 'Existing',
        secretName: 'x',
        rotation: { every: '24h', hook: { set: 'tell' } },
      }),
      "the rotation of an Existing secret is somebody else's",
    ],
    [
      'a hook that may take for ever',
      rotation({ every: '24h', hook: { set: 'tell', timeout: '25h' } }),
      'hook.timeout is at most 24h',
    ],
    [
      'a hook that only tests',
      rotation({ every: '24h', hook: { test: 'try' } }),
      'spec.secrets[0].rotation.hook.set: Required value',
    ],
    [
      'a hook by no name',
      rotation({ every: '24h', hook: { set: 'Tell' } }),
      'hook.set, the name of a CronJob',
    ],
    [
      'a test by no name',
      rotation({ every: '24h', hook: { set: 'tell', test: 'Try' } }),
      'hook.test, the name of a CronJob',
    ],
    [
      'a hook that may take days',
      rotation({ every: '24h', hook: { set: 'tell', timeout: '1d' } }),
      'hook.timeout must be a duration of at least one second',
    ],
    [
      'the refresh of what has no such name',
      rotation({ every: '24h', refresh: [{ kind: 'ExternalSecret', name: 'Bank' }] }),
      'refresh[].name must be the name of an ExternalSecret or a PushSecret',
    ],
    [
      'a copy of an Existing',
      secret({ type: 'Existing', secretName: 'x', store: 'Vault' }),
      'it cannot be copied to a vault; remove store',
    ],
    ['days', rotation({ every: '1d' }), 'every must be a duration of at least one second'],
    ['a number', rotation({ every: '3600' }), 'there is no unit for days'],
    ['a negative duration', rotation({ every: '-1h' }), 'every must be a duration'],
    [
      'no time at all',
      rotation({ every: '0s' }),
      'every must be a duration of at least one second',
    ],
    ['less than a second', rotation({ every: '999ms' }), 'at least one second'],
    ['more hours than an int64 holds', rotation({ every: '9999999h' }), 'every must be a duration'],
    ['a blank overlap', rotation({ every: '24h', overlap: '' }), 'overlap must be a duration'],
    [
      'an overlap as long as every',
      rotation({ every: '60m', overlap: '1h' }),
      'overlap must be shorter than every',
    ],
    [
      'neither every nor schedule',
      rotation({ overlap: '1h' }),
      'a rotation needs either every or schedule',
    ],
    ['both', rotation({ every: '1h', schedule: '0 3 * * *' }), 'write exactly one of the two'],
    [
      'a time zone without a schedule',
      rotation({ every: '1h', timeZone: 'Europe/Berlin' }),
      'timeZone says how to read schedule, and there is none',
    ],
    [
      'an offset as time zone',
      rotation({ schedule: '0 3 * * *', timeZone: '+02:00' }),
      'timeZone must be a name of the IANA database',
    ],
    [
      'a bound of restarts that are not asked for',
      rotation({ every: '1h', maxConcurrentRestarts: 2 }),
      'maxConcurrentRestarts bounds what restartConsumers does',
    ],
    [
      'a bound of no restarts',
      rotation({ every: '1h', restartConsumers: true, maxConcurrentRestarts: 0 }),
      'should be greater than or equal to 1',
    ],
    [
      'six cron fields',
      rotation({ schedule: '0 0 3 * * *' }),
      'schedule must be a cron expression of five fields',
    ],
    [
      'a macro',
      rotation({ schedule: '@daily' }),
      'schedule must be a cron expression of five fields',
    ],
    [
      'minute 60',
      rotation({ schedule: '60 3 * * *' }),
      'schedule must be a cron expression of five fields',
    ],
  ])('refuses %s', refused);

  it('says nothing of the overlap where every is no duration, and gives no expression error', async () => {
    const { says } = await apply(rotation({ every: '1d', overlap: '1h' }));

    expect(says).not.toContain('overlap must be shorter');
    expect(says).not.toContain('evaluating rule');
  });

  it.each([
    [
      'hours',
      rotation({ every: '24h', overlap: '1h', restartConsumers: true, maxConcurrentRestarts: 1 }),
    ],
    ['parts', rotation({ every: '1h30m', overlap: '1.5m' })],
    [
      'a hook',
      rotation({ every: '24h', hook: { set: 'a', test: 'b', timeout: '24h', maxRetries: 0 } }),
    ],
    ['a schedule', rotation({ schedule: '0 3 * * SUN', overlap: '48h' })],
    ...[
      'UTC',
      'Europe/Berlin',
      'America/Argentina/Buenos_Aires',
      'America/Port-au-Prince',
      'Etc/GMT+5',
      'Etc/GMT-14',
      'GB-Eire',
    ].map((timeZone): [string, object] => [
      timeZone,
      rotation({ schedule: '0 3 * * SUN', timeZone }),
    ]),
    ['no rotation', secret({ length: 64 })],
    [
      'a policy',
      secret({
        length: 24,
        characters: { lowercase: 1, uppercase: 1, digits: 20, symbols: 2, symbolSet: '!"#\\' },
      }),
    ],
    ['a policy without symbols', secret({ characters: { symbols: 0, symbolSet: '' } })],
    ['a user', secret({ type: 'BasicAuth', username: 'CORP\\svc erp@example.com' })],
    ['a key pair', secret({ type: 'SSHKeyPair' })],
    [
      'one that is watched',
      secret({ type: 'Existing', secretName: 'bank.api', rotation: { every: '2160h' } }),
    ],
  ])('takes %s', taken);
});

describe('tokens', () => {
  it.each([
    ['no audience', token({ audience: undefined }), 'audience: Required value'],
    ['a blank audience', token({ audience: '' }), 'should be at least 1 chars long'],
    [
      'an audience of two words',
      token({ audience: 'vault and more' }),
      'audience must be one word of visible ASCII characters',
    ],
    ['a name that is no label', token({ name: 'c.i' }), 'the name of a token must be a DNS label'],
    [
      'less than ten minutes',
      token({ expirationSeconds: 599 }),
      'should be greater than or equal to 600',
    ],
    [
      'more than an hour',
      token({ expirationSeconds: 3601 }),
      'should be less than or equal to 3600',
    ],
    [
      'the same name twice',
      identity({ tokens: [1, 2].map(() => ({ name: 'ci', audience: 'vault' })) }),
      'Duplicate value: {"name":"ci"}',
    ],
    [
      'the name of a secret',
      identity({
        secrets: [{ name: 'ci', type: 'Token' }],
        tokens: [{ name: 'ci', audience: 'vault' }],
      }),
      'tokens and secrets share their names',
    ],
  ])('refuses %s', refused);

  it.each([
    ['a URL', token({})],
    ['ten minutes', token({ expirationSeconds: 600 })],
    ['an hour, for the API server', token({ expirationSeconds: 3600, allowKubernetesAPI: true })],
    [
      'other names than those of secrets',
      identity({
        secrets: [{ name: 'database', type: 'Token' }],
        tokens: [{ name: 'ci', audience: 'vault' }],
      }),
    ],
  ])('takes %s', taken);
});

describe('kill switches', () => {
  it.each([
    [
      'another name than the workflow',
      killSwitch({ workflow: 'other' }),
      'the name of a KillSwitch must be the name of the workflow',
    ],
    [
      'both a workflow and the whole namespace',
      killSwitch({ wholeNamespace: true }),
      'write either workflow or wholeNamespace: true',
    ],
    ['a workflow that is no label', killSwitch({ workflow: 'A' }), 'workflow must be a DNS label'],
    ['a blank reason', killSwitch({ reason: '   ' }), 'reason must not be blank'],
    ['no reason', killSwitch({ reason: undefined }), 'spec.reason: Required value'],
  ])('refuses %s', refused);

  it.each([
    ['the reason', { reason: 'Another one.' }],
    ['who engaged', { engagedBy: 'somebody-else' }],
  ])('refuses to change %s', async (_what, change) => {
    const name = 'engaged';
    await kubectl(
      ['apply', `--namespace=${namespace}`, '-f', '-'],
      JSON.stringify(killSwitch({ engagedBy: 'operator' }, name)),
    );

    await refused(
      '',
      killSwitch({ engagedBy: 'operator', ...change }, name),
      "the spec of a KillSwitch can't be changed",
    );
  });
});

describe('guardrail policies', () => {
  it.each([
    [
      'another one',
      guardrailPolicy({}, 'other'),
      "there is one GuardrailPolicy, and it is called 'default'",
    ],
    [
      'an environment that is no label',
      guardrailPolicy({ environments: [{ name: 'Prod!', tier: 'prod' }] }),
      'the name of an environment must be a DNS label',
    ],
    [
      'a tier that is mapped',
      guardrailPolicy({ environments: [{ name: 'prod', tier: 'dev' }] }),
      'dev, test and prod are tiers themselves',
    ],
    [
      'fewer approvals for more risk',
      tier({ approvals: { medium: 3 } }),
      'a higher risk needs no fewer approvals than a lower one',
    ],
    [
      'a group that everybody is in',
      tier({ approvers: [{ risk: 'High', groups: ['system:authenticated'] }] }),
      "groups that begin with 'system:' are the cluster's own",
    ],
    ...['tokenLifetime', 'rotationInterval', 'reviewInterval'].map(
      (field): [string, object, string] => [
        `no duration as ${field}`,
        tier({ ceilings: { [field]: '30d' } }),
        `${field} must be a duration of at least one second`,
      ],
    ),
    ['no grace at all', guardrailPolicy({ gracePeriod: 'none' }), 'gracePeriod must be a duration'],
  ])('refuses %s', refused);

  it('takes the sample', async () => {
    const file = path.join(root, 'config/samples/policy/guardrail-policy.yaml');
    await kubectl(['apply', '--dry-run=server', '-f', file]);
  });
});

describe('cluster kill switches', () => {
  it.each([
    [
      'nothing that is stopped',
      clusterKillSwitch({}),
      'write exactly one of environments, namespaceSelector, everything: true, teams and risks',
    ],
    [
      'two things that are stopped',
      clusterKillSwitch({ environments: ['prod'], risks: ['High'] }),
      'write exactly one of environments, namespaceSelector, everything: true, teams and risks',
    ],
    [
      'an environment that is no label',
      clusterKillSwitch({ environments: ['Prod!'] }),
      'an environment must be a DNS label',
    ],
    [
      'a name that no label can hold',
      clusterKillSwitch({ everything: true }, 'a'.repeat(64)),
      'the name of a ClusterKillSwitch has at most 63 characters',
    ],
    ['no reason', clusterKillSwitch({ everything: true, reason: ' ' }), 'reason must not be blank'],
  ])('refuses %s', refused);

  it('refuses to change what is stopped', async () => {
    const spec = { environments: ['prod'], engagedBy: 'alice' };
    await kubectl(['apply', '-f', '-'], JSON.stringify(clusterKillSwitch(spec)));
    await refused(
      '',
      clusterKillSwitch({ ...spec, environments: ['dev'] }),
      "the spec of a ClusterKillSwitch can't be changed",
    );
  });
});

describe('decisions', () => {
  it.each<Refusal>([
    ['a revision by another name', approval({ digest: 'latest' }), '64 hexadecimal digits'],
    ['a workflow that is no label', approval({ workflow: 'A' }), 'workflow must be a DNS label'],
    ['a blank reason', approval({ reason: ' ' }), 'reason must not be blank'],
    ['another decision', approval({ decision: 'Maybe' }), 'supported values: "Approve", "Reject"'],
    ['an end that is no time', approval({ expires: 'tomorrow' }), 'spec.expires'],
    [
      'a rejection that ends',
      approval({ decision: 'Reject', expires: '2099-01-01T00:00:00Z' }),
      'a rejection holds until something changes',
    ],
  ])('refuses %s', refused);

  it('refuses to change one', async () => {
    await kubectl(['apply', `--namespace=${namespace}`, '-f', '-'], JSON.stringify(approval()));
    await refused('', approval({ decision: 'Reject' }), "a decision can't be changed");
  });
});

describe('approval of a Workflow', () => {
  it.each<Refusal>([
    ['an unknown risk', workflow({ risk: 'Extreme' }), 'supported values: "Low", "Medium", "High"'],
    [
      'more approvals than people',
      workflow({ approval: { required: 9 } }),
      'spec.approval.required',
    ],
    [
      'a time to wait where no run does',
      workflow({ approval: { timeout: '1h' } }),
      'approval.timeout is how long a run waits',
    ],
    ['a blank reason', workflow({ change: { reason: ' ' } }), 'reason must not be blank'],
  ])('refuses %s', refused);

  it('is that of a low risk by default', async () => {
    const text = await kubectl(
      [
        'create',
        '--dry-run=server',
        `--namespace=${namespace}`,
        '-o=jsonpath={.spec.risk}',
        '-f',
        '-',
      ],
      JSON.stringify(workflow({}, 'by-default')),
    );
    expect(text).toBe('Low');
  });
});

function accessReview(spec: object = {}, name = 'first'): object {
  return {
    apiVersion: API_VERSION,
    kind: 'AccessReview',
    metadata: { name },
    spec: {
      identity: 'invoice-posting',
      decision: 'Keep',
      reason: 'Still in use.',
      digest: `sha256:${'0'.repeat(64)}`,
      ...spec,
    },
  };
}

describe('access reviews', () => {
  const asked = (fields: object): object => identity({ accessReview: fields });

  it.each([
    [
      'an identity that is no label',
      accessReview({ identity: 'A' }),
      'identity must be a DNS label',
    ],
    ['a blank reason', accessReview({ reason: ' ' }), 'reason must not be blank'],
    ['another decision', accessReview({ decision: 'Approve' }), 'Unsupported value: "Approve"'],
    ['no digest', accessReview({ digest: 'all' }), 'digest must be the digest that'],
    ['no interval', asked({ onOverdue: 'Hold' }), 'every: Required value'],
    ['days', asked({ every: '90d' }), 'every must be a duration'],
    [
      'a grace period in days',
      asked({ every: '2160h', onOverdue: 'Hold', gracePeriod: '7d' }),
      'gracePeriod must be a duration',
    ],
    [
      'a grace period of a warning',
      asked({ every: '2160h', gracePeriod: '168h' }),
      'gracePeriod says how long a hold waits',
    ],
  ])('refuses %s', refused);

  it.each([
    ['a quarter', asked({ every: '2160h' })],
    ['a hold', asked({ every: '2160h', onOverdue: 'Hold', gracePeriod: '168h' })],
    ['a review', accessReview()],
  ])('takes %s', taken);

  it('refuses to change one', async () => {
    const review = JSON.stringify(accessReview());
    await kubectl(['apply', `--namespace=${namespace}`, '-f', '-'], review);
    await refused('', accessReview({ decision: 'Revoke' }), "an AccessReview can't be changed");
  });
});

/** One of two records, as far as the schema looks at it. */
function segment(change: object = {}, name = 'invoice.00000001'): object {
  const hash = 'a'.repeat(64);
  return {
    apiVersion: API_VERSION,
    kind: 'EvidenceSegment',
    metadata: { name },
    spec: {
      chain: 'invoice',
      incarnation: 'u',
      index: 1,
      first: 1,
      previous: '0'.repeat(64),
      carried: [],
      records: [1, 2].map((sequence) => ({ sequence, hash, record: '{}' })),
      head: { sequence: 2, hash, time: '2026-01-01T00:00:00Z', key: 'k', signature: 's' },
      sealed: false,
      ...change,
    },
  };
}

describe('segments of evidence', () => {
  const hash = 'a'.repeat(64);
  const head = { sequence: 2, hash, time: '2026-01-01T00:00:00Z', key: 'k', signature: 's' };
  const record = (sequence: number, text = '{}'): object => ({ sequence, hash, record: text });

  it.each([
    [
      'a hash that is none',
      segment({ index: 2, previous: 'A'.repeat(64) }, 'invoice.00000002'),
      'a hash is SHA-256 in 64 lower-case hexadecimal digits',
    ],
    [
      'a gap',
      segment({ index: 2, records: [record(1), record(3)] }, 'invoice.00000002'),
      'the sequences of a segment follow on each other',
    ],
    [
      'a head that is not the end',
      segment({ index: 2, head: { ...head, sequence: 1 } }, 'invoice.00000002'),
      'the signed head of a segment is its last record',
    ],
    [
      'the name of another chain',
      segment({}, 'other.00000001'),
      'a segment of evidence is named after its chain',
    ],
    [
      'the same sequence twice',
      segment({ index: 2, records: [record(1), record(1)] }, 'invoice.00000002'),
      'Duplicate value',
    ],
  ])('refuses %s', refused);

  it('takes more records', async () => {
    await kubectl(['apply', `--namespace=${namespace}`, '-f', '-'], JSON.stringify(segment()));
    const records = [record(1), record(2), record(3)];
    await taken('', segment({ records, head: { ...head, sequence: 3 } }));
    await taken('', segment({ sealed: true }));
  });

  it.each([
    [
      'a record that is written anew',
      { records: [record(1, '{"a":1}'), record(2)] },
      "a record of evidence can't be changed once it is written",
    ],
    [
      'a record that is taken out',
      { records: [record(1)], head: { ...head, sequence: 1 } },
      'records of evidence are only ever appended: none is taken out',
    ],
    [
      'another incarnation',
      { incarnation: 'other' },
      "incarnation of a segment of evidence can't be changed",
    ],
    ['another chain', { chain: 'other' }, 'a segment of evidence is named after its chain'],
    ['another number', { index: 2 }, 'a segment of evidence is named after its chain'],
    [
      'another beginning',
      { first: 0, records: [record(0), record(1), record(2)] },
      "first of a segment of evidence can't be changed",
    ],
    [
      'another end before',
      { previous: hash },
      "previous of a segment of evidence can't be changed",
    ],
    [
      'something else taken over',
      { carried: [{ subject: 'a', state: 'b' }] },
      "carried of a segment of evidence can't be changed",
    ],
  ])('refuses %s in one that stands', (_what, change, sentence) =>
    refused('', segment(change), sentence),
  );

  it('refuses whatever comes behind the seal', async () => {
    const sealed = JSON.stringify(segment({ sealed: true }));
    await kubectl(['apply', `--namespace=${namespace}`, '-f', '-'], sealed);
    const records = [record(1), record(2), record(3)];
    await refused(
      '',
      segment({ sealed: true, records, head: { ...head, sequence: 3 } }),
      'this segment of evidence is sealed: the next records are in the next one',
    );
  });
});

function revision(change: object = {}, name = 'invoice-posting.1'): object {
  const digest = 'a'.repeat(64);
  return {
    apiVersion: API_VERSION,
    kind: 'WorkflowRevision',
    metadata: { name },
    spec: {
      workflow: 'invoice-posting',
      revision: 1,
      digest,
      authenticated: ['eve'],
      changers: ['eve'],
      parts: [{ name: 'Workflow', digest }],
      ...change,
    },
  };
}

describe('revisions of a Workflow', () => {
  const sentence = 'a revision is named after its Workflow, and numbered';

  it.each([
    ['the name of another Workflow', revision({}, 'other.1'), sentence],
    ['another number', revision({ revision: 2 }), sentence],
    ['no number', revision({}, 'invoice-posting'), sentence],
    ['a number with zeros before it', revision({}, 'invoice-posting.01'), sentence],
  ])('refuse %s', refused);

  it('stay as they were recorded', async () => {
    const recorded = revision();
    await kubectl(['apply', `--namespace=${namespace}`, '-f', '-'], JSON.stringify(recorded));
    await taken('', recorded);
    await refused('', revision({ changers: [] }), "a revision can't be changed");
  });
});

describe('limits of a Workflow', () => {
  const limited = (limits: object): object => workflow({ limits });

  it.each<Refusal>([
    ['a timeout in days', limited({ timeout: '1d' }), 'timeout must be a duration of at least'],
    ['no retry to take away', limited({ maxRetries: -1 }), 'should be greater than or equal to 0'],
    ['no run at all', limited({ maxConcurrentRuns: 0 }), 'should be greater than or equal to 1'],
    [
      'a rate of more runs than it looks at',
      limited({ maxFailureRate: { percent: 10, over: 4, minRuns: 5 } }),
      'minRuns must not be above over',
    ],
    ['an action that is none', limited({ onBreach: 'Pause' }), 'supported values: "Hold", "Kill"'],
  ])('refuse %s', refused);

  it.each([
    ['nothing', limited({})],
    ['a first failure', limited({ maxConsecutiveFailures: 0, maxRetries: 0, timeout: '1h30m' })],
  ])('take %s', taken);
});

type Refusal = [what: string, object: object, sentence: string];

async function refused(_what: string, object: object, sentence: string): Promise<void> {
  const { accepted, says } = await apply(object);
  refusals.push(says);
  expect(says).toContain(sentence);
  expect(accepted).toBe(false);
  expect(says).not.toMatch(/rule evaluation|evaluating rule|no such key/);
}

async function taken(_what: string, object: object): Promise<void> {
  expect(await apply(object)).toMatchObject({ accepted: true });
}

/** Every `message` at any depth. */
function sentencesIn(node: unknown): string[] {
  if (typeof node !== 'object' || node === null) return [];
  const own = 'message' in node && typeof node.message === 'string' ? [node.message] : [];
  return [...own, ...Object.values(node).flatMap(sentencesIn)];
}

it('has a case for every sentence of every kind', () => {
  const sentences = sentencesIn(customResourceDefinitions());

  expect(sentences.length).toBeGreaterThan(30);
  expect(sentences.filter((sentence) => !refusals.some((said) => said.includes(sentence)))).toEqual(
    [],
  );
});

describe('the samples', () => {
  it('are accepted, the kill switch included, and a second apply changes nothing', async () => {
    await kubectl(['apply', '-k', path.join(root, 'config/samples')]);
    const again = await kubectl(['apply', '-k', path.join(root, 'config/samples')]);
    const lines = again.trim().split('\n');

    expect(lines.filter((line) => !line.endsWith(' unchanged'))).toEqual([]);
    // Namespace, two RoleBindings for people, identity, Workflow, Deployment and CronJob.
    expect(lines).toHaveLength(7);
    await kubectl([
      'apply',
      '--dry-run=server',
      '-f',
      path.join(root, 'config/samples/kill-switch.yaml'),
    ]);
  });

  it.each(['README.md', 'docs/runbooks/kill-switch.md', 'docs/guides/access-review.md'])(
    'of %s are accepted too',
    async (file) => {
      const text = await readFile(path.join(root, file), 'utf8');
      const blocks = [...text.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, block = '']) => block);
      expect(blocks.length).toBeGreaterThan(0);
      for (const block of blocks) {
        const args = ['apply', '--dry-run=server', '-f', '-'];
        const { code, stderr } = await controlPlane.kubectl(args, { input: block });
        expect(code, stderr).toBe(0);
      }
    },
  );

  it('run as the identity and read its Secret', async () => {
    const text = await readFile(path.join(root, 'config/samples/workloads.yaml'), 'utf8');
    for (const workload of loadAll(text)) {
      const template = JSON.stringify(workload);
      expect(template).toContain('"serviceAccountName":"invoice-posting"');
      expect(template).toContain('"name":"aid.invoice-posting.database"');
    }
  });
});

function condition(type: string, status: string, reason: string): object {
  return { type, status, reason, message: 'A test.', lastTransitionTime: '2026-11-24T12:00:00Z' };
}

async function writeStatus(kind: string, name: string, status: object): Promise<string> {
  return kubectl([
    'patch',
    kind,
    name,
    `--namespace=${namespace}`,
    '--subresource=status',
    '--type=merge',
    `--patch=${JSON.stringify({ spec: { description: 'ignored' }, status })}`,
    '-o=json',
  ]);
}

/** Header and row of `kubectl get`, with a bar between the columns. */
async function show(kind: string, name: string, conditions: object[]): Promise<string[]> {
  await writeStatus(kind, name, { conditions });
  const text = await kubectl(['get', kind, name, `--namespace=${namespace}`]);
  return text
    .trim()
    .split('\n')
    .map((line) => line.replaceAll(/\s\s+/g, '|'));
}

describe('kubectl', () => {
  it.each([
    ['awf.spec.egress.cidr', 'Network, IPv4 or IPv6'],
    ['aid.spec.secrets.rotation.overlap', 'Time after a rotation for which the value before stays'],
    ['aid.spec.tokens.audience', 'Whom the token is for'],
    ['ksw.spec.reason', 'Why it was stopped.'],
    ['awf.status.conditions.reason', 'docs/reference/conditions.md'],
    ['automationworkflow', 'A Workflow is an automation'],
  ])('explains %s', async (field, words) => {
    const text = await kubectl(['explain', field]);
    expect(text.replaceAll(/\s+/g, ' ')).toContain(words);
  });

  it('knows the short names, the singulars and the category', async () => {
    const resources = await kubectl(['api-resources', '--categories=guardrails', '--no-headers']);
    expect(
      resources
        .split('\n')
        .map((line) => line.split(/\s+/).slice(0, 2).join(' '))
        .filter(Boolean),
    ).toEqual([
      'accessreviews arv',
      'approvals awa',
      'automationidentities aid',
      'automationworkflows awf',
      'clusterkillswitches cksw',
      'evidencesegments evs',
      'guardrailpolicies gpol',
      'killswitches ksw',
      'workflowrevisions awr',
    ]);
    for (const name of [
      'accessreview',
      'automationidentity',
      'automationworkflow',
      'clusterkillswitch',
      'evidencesegment',
      'guardrailpolicy',
      'killswitch',
      'workflowrevision',
    ]) {
      await kubectl(['get', name, `--namespace=${namespace}`]);
    }
  });

  it('shows columns made of the conditions', async () => {
    const [header, row] = await show('awf', 'invoice-posting', [
      condition('Ready', 'False', 'KillSwitchEngaged'),
      condition('Held', 'False', 'Complete'),
      condition('Approved', 'True', 'NotRequired'),
      condition('Stopped', 'True', 'KillSwitchEngaged'),
    ]);
    expect(header).toBe('NAME|READY|HELD|APPROVED|STOPPED|REASON|AGE');
    expect(row).toMatch(/^invoice-posting\|False\|False\|True\|True\|KillSwitchEngaged\|\d+/);

    const [identityHeader, identityRow] = await show('aid', 'invoice-posting', [
      condition('Ready', 'False', 'Held'),
      condition('Held', 'True', 'OwnerMissing'),
    ]);
    expect(identityHeader).toBe('NAME|READY|HELD|EXCESS|REVIEW-OVERDUE|REASON|AGE');
    expect(identityRow).toMatch(/^invoice-posting\|False\|True\|Held\|\d+/);

    const [killHeader, killRow] = await show('ksw', 'engaged', [
      condition('Ready', 'False', 'Stopping'),
      condition('Fenced', 'True', 'Probed'),
      condition('PodsGone', 'Unknown', 'NodeSilent'),
      condition('Effective', 'Unknown', 'Unverified'),
    ]);
    expect(killHeader).toBe('NAME|WORKFLOW|REASON|ENGAGED-BY|FENCED|PODS-GONE|EFFECTIVE|READY|AGE');
    expect(killRow).toMatch(
      /^engaged\|engaged\|Posts twice.\|operator\|True\|Unknown\|Unknown\|False\|\d+/,
    );
  });
});

describe('the status subresource', () => {
  const name = 'apart';

  it('is written apart from the spec', async () => {
    const at = [`--namespace=${namespace}`, '-o=json'];
    const object = { ...workflow({}, name), status: { observedGeneration: 9 } };

    const created = await kubectl(['apply', ...at, '-f', '-'], JSON.stringify(object));
    const written = await writeStatus('awf', name, { observedGeneration: 1 });

    expect(JSON.parse(created)).not.toHaveProperty('status');
    expect(JSON.parse(written)).toHaveProperty('status', { observedGeneration: 1 });
    expect(JSON.parse(written)).not.toHaveProperty('spec.description');
    expect(JSON.parse(written)).toHaveProperty('metadata.generation', 1);
  });

  it('refuses a condition twice', async () => {
    const conditions = [condition('Ready', 'True', 'A'), condition('Ready', 'False', 'B')];

    await expect(writeStatus('awf', name, { conditions })).rejects.toThrow('Duplicate value');
  });
});

describe('the API server and the operator agree', () => {
  const unit = fc.constantFrom('h', 'm', 's', 'ms', 'us', 'µs', 'μs', 'ns', 'd', '', 'H');
  const amount = fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: 0, max: 999 }).map(String) },
    fc.integer({ min: 0, max: 999_999_999 }).map(String),
    fc.double({ min: 0, max: 99, noNaN: true }).map((value) => value.toFixed(3)),
    fc.constantFrom('.5', '1.', '-1', '+1', '1e3', ' 1', '1,5', '00001', '99999', '100000'),
  );
  const durations = fc.oneof(
    {
      weight: 8,
      arbitrary: fc
        .array(
          fc.tuple(amount, unit).map((part) => part.join('')),
          { minLength: 1, maxLength: 5 },
        )
        .map((parts) => parts.join('')),
    },
    fc.string({ maxLength: 8 }),
  );

  it('on what a duration is', async () => {
    let accepted = 0;
    await fc.assert(
      fc.asyncProperty(durations, async (every) => {
        const answer = await wouldAccept(`${ownPath}/automationidentities`, rotation({ every }));
        if (answer) accepted++;
        expect({ every, answer }).toEqual({ every, answer: (parseDuration(every) ?? 0) >= 1000 });
      }),
      { numRuns: 400 },
    );
    // About one in six.
    expect(accepted).toBeGreaterThan(10);
  });

  it('on which of two durations is the shorter one', async () => {
    const sound = fc
      .array(
        fc.tuple(fc.integer({ min: 1, max: 130 }), fc.constantFrom('h', 'm', 's', '.5m', '.1h')),
        { minLength: 1, maxLength: 3 },
      )
      .map((parts) => parts.map((part) => part.join('')).join(''));
    const pairs = fc.oneof(
      fc.tuple(sound, sound),
      sound.map((text): [string, string] => [text, text]),
      fc.constantFrom<[string, string]>(['66m', '1.1h'], ['1.1h', '66m'], ['59m', '1h']),
    );
    await fc.assert(
      fc.asyncProperty(pairs, async ([overlap, every]) => {
        const answer = await wouldAccept(
          `${ownPath}/automationidentities`,
          rotation({ every, overlap }),
        );
        const expected = (parseDuration(overlap) ?? 0) < (parseDuration(every) ?? 0);
        expect({ overlap, every, answer }).toEqual({ overlap, every, answer: expected });
      }),
      { numRuns: 200 },
    );
  });

  it('on the shape of a schedule', async () => {
    const field = fc.constantFrom(
      '*',
      '0',
      '7',
      '12',
      '31',
      '59',
      '60',
      '*/5',
      '1-5',
      '1,2',
      '8-18/2',
      'SUN',
      'JAN',
      'MON-FRI',
      '?',
      'L',
      '5/15',
      '',
    );
    const schedules = fc
      .array(field, { minLength: 4, maxLength: 6 })
      .map((fields) => fields.join(' '));
    const sound = fc
      .tuple(
        field,
        fc.constantFrom('3', '*', '*/2'),
        fc.constantFrom('1', '*'),
        fc.constantFrom('*', 'JAN'),
        fc.constantFrom('*', 'SUN', '7'),
      )
      .map((fields) => fields.join(' '));
    await fc.assert(
      fc.asyncProperty(fc.oneof(schedules, sound), async (schedule) => {
        const answer = await wouldAccept(`${ownPath}/automationidentities`, rotation({ schedule }));
        expect({ schedule, answer }).toEqual({
          schedule,
          answer: new RegExp(schedulePattern).test(schedule),
        });
      }),
      { numRuns: 200 },
    );
  });
});

function networkPolicy(peer: object): object {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: 'test' },
    spec: { podSelector: {}, policyTypes: ['Egress'], egress: [{ to: [peer] }] },
  };
}

interface Network {
  width: 32 | 128;
  bits: bigint;
  length: number;
}

const network: fc.Arbitrary<Network> = fc.constantFrom<32 | 128>(32, 128).chain((width) =>
  fc.record({
    width: fc.constant(width),
    bits: fc.bigInt({ min: 0n, max: (1n << BigInt(width)) - 1n }),
    // Wider ones are refused: they are as good as anywhere.
    length: fc.integer({ min: width === 32 ? 8 : 16, max: width }),
  }),
);

/** The network in CIDR notation, and the same with its last address bit set. */
function notations({ width, bits, length }: Network): { sound: string; withHostBit: string } {
  const free = BigInt(width - length);
  const base = (bits >> free) << free;
  const write = (value: bigint): string => {
    const size = width === 32 ? 8n : 16n;
    const groups = Array.from({ length: width === 32 ? 4 : 8 }, (_, index) =>
      ((value >> (BigInt(width) - size * BigInt(index + 1))) & ((1n << size) - 1n)).toString(
        width === 32 ? 10 : 16,
      ),
    );
    return `${groups.join(width === 32 ? '.' : ':')}/${length}`;
  };
  return { sound: write(base), withHostBit: write(base | 1n) };
}

/** What is refused although a NetworkPolicy could carry it: the metadata addresses of clouds. */
const metadata = [
  { width: 32, bits: 0xa9_fe_a9_fen },
  { width: 128, bits: 0xfd00_0ec2_0000_0000_0000_0000_0000_0254n },
  { width: 128, bits: 0xfd20_00ce_0000_0000_0000_0000_0000_0254n },
];

function isSame(a: bigint, b: bigint, free: number): boolean {
  return a >> BigInt(free) === b >> BigInt(free);
}

describe('what a Workflow may say, a NetworkPolicy can carry', () => {
  const policies = '/apis/networking.k8s.io/v1/namespaces/default/networkpolicies';
  const workflows = `${ownPath}/automationworkflows`;

  it('of networks', async () => {
    // An IPv4 address in IPv6 notation is one network under two names: the API server takes neither.
    const plain = network.filter(
      ({ width, bits, length }) =>
        (width === 32 || bits >> 32n !== 0xffffn) &&
        !metadata.some((one) => one.width === width && isSame(one.bits, bits, width - length)),
    );
    await fc.assert(
      fc.asyncProperty(plain, async (generated) => {
        const { sound, withHostBit } = notations(generated);
        expect([sound, await wouldAccept(workflows, egress({ cidr: sound }))]).toEqual([
          sound,
          true,
        ]);
        const policy = networkPolicy({ ipBlock: { cidr: sound } });
        expect([sound, await wouldAccept(policies, policy)]).toEqual([sound, true]);
        if (generated.length === generated.width) return;
        const answer = await wouldAccept(workflows, egress({ cidr: withHostBit }));
        expect([withHostBit, answer]).toEqual([withHostBit, false]);
      }),
      { numRuns: 100 },
    );
  });

  it('of texts that look like networks', async () => {
    const address = fc.oneof(
      fc.ipV4Extended(),
      fc.ipV6(),
      fc.constantFrom(
        '10.0.0.0',
        '::',
        '::ffff:10.0.0.0',
        '010.0.0.0',
        '10.0.0',
        'fe80::%eth0',
        '',
      ),
    );
    const length = fc.constantFrom('0', '8', '32', '33', '128', '129', '08', '-1', '', ' 8', '8/8');
    await fc.assert(
      fc.asyncProperty(address, length, async (...parts) => {
        const cidr = parts.join('/');
        if (!(await wouldAccept(workflows, egress({ cidr })))) return;
        const policy = networkPolicy({ ipBlock: { cidr } });
        expect([cidr, await wouldAccept(policies, policy)]).toEqual([cidr, true]);
      }),
      { numRuns: 300 },
    );
  });

  it('of exceptions', async () => {
    const networks = [
      '0.0.0.0/0',
      '10.0.0.0/8',
      '10.0.0.0/9',
      '10.128.0.0/9',
      '10.1.0.0/16',
      '10.0.0.128/25',
      '10.0.0.0/32',
      '::/0',
      '2001:db8::/32',
      '2001:db8::/64',
    ];
    const narrow = networks.filter((cidr) => !cidr.endsWith('/0'));
    const pairs = narrow.flatMap((cidr) => networks.map((except) => ({ cidr, except: [except] })));
    for (const ipBlock of pairs) {
      const answer = await wouldAccept(workflows, egress(ipBlock));
      const policy = await wouldAccept(policies, networkPolicy({ ipBlock }));
      expect({ ...ipBlock, answer }).toEqual({ ...ipBlock, answer: policy });
    }
  });

  it('of labels', async () => {
    const character = fc.constantFrom('a', 'B', '9', '-', '_', '.', '/', ' ', 'é');
    const word = fc.array(character, { maxLength: 8 }).map((characters) => characters.join(''));
    const special = fc.constantFrom(
      'app',
      'example.com/app',
      'a..b/c',
      'A.com/c',
      `${'a'.repeat(253)}/c`,
      `${'a'.repeat(254)}/c`,
      'x'.repeat(63),
      'x'.repeat(64),
    );
    await fc.assert(
      fc.asyncProperty(fc.oneof(word, special), word, async (key, value) => {
        const podSelector = { matchLabels: { [key]: value } };
        const entry = { namespace: 'databases', podSelector };
        const answer = await wouldAccept(workflows, egress(entry));
        const policy = await wouldAccept(policies, networkPolicy({ podSelector }));
        expect({ podSelector, answer }).toEqual({ podSelector, answer: policy });
      }),
      { numRuns: 200 },
    );
  });
});
