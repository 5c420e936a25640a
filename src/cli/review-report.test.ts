import { describe, expect, it } from 'vitest';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import { annotation } from '../api/names.ts';
import type { Pod } from '../api/objects.ts';
import { digestOf } from '../guardrails/identity/digest.ts';
import type { Grant } from '../guardrails/identity/effective.ts';
import { reviewReport, reviewText, type ReviewFacts } from './review-report.ts';

const now = Date.parse('2026-05-03T12:00:00Z');
const rule = { apiGroups: [''], resources: ['configmaps'], verbs: ['get', 'list'] };

const identity: AutomationIdentity = {
  metadata: {
    namespace: 'finance',
    name: 'poster',
    generation: 3,
    creationTimestamp: '2026-05-01T00:00:00Z',
    annotations: { [annotation.changedBy]: 'alice' },
  },
  spec: {
    purpose: 'posts invoices',
    owner: { team: 'finance', contact: 'a@example.com' },
    permissions: [{ ...rule, reason: 'its settings' }],
    secrets: [
      { name: 'erp', type: 'Password', rotation: { every: '24h' } },
      { name: 'old', type: 'Existing', secretName: 'by-hand' },
    ],
    tokens: [{ name: 'ci', audience: 'ci', allowKubernetesAPI: true }],
  },
  status: {
    observedGeneration: 3,
    accessReview: { digest: digestOf([rule], [], []) },
    secrets: [
      { name: 'erp', secretName: 'aid.poster.erp', lastRotationTime: '2026-05-03T11:58:30Z' },
      { name: 'old', secretName: 'by-hand', owner: 'Manager helm' },
    ],
    tokens: [
      {
        name: 'ci',
        secretName: 'aid.poster.ci',
        audience: 'ci',
        expirationTime: '2026-05-03T13:00:00Z',
      },
    ],
  },
};

const excess: Grant = {
  binding: { kind: 'RoleBinding', namespace: 'sales', name: 'wide' },
  role: { kind: 'ClusterRole', name: 'edit' },
  through: 'system:serviceaccounts',
  namespace: 'sales',
  rules: [
    { apiGroups: ['apps'], resources: ['a', 'b', 'c', 'd', 'e'], verbs: ['patch'] },
    { nonResourceURLs: ['/logs'], verbs: ['get'] },
  ],
};

const facts: ReviewFacts = {
  identity,
  beyond: [],
  workflow: undefined,
  reviews: [],
  pods: [],
  now,
};

const textOf = (parts: Partial<ReviewFacts> = {}): string =>
  reviewText(reviewReport({ ...facts, ...parts })).join('\n');

describe('a review', () => {
  it('shows whose it is, what it has, and how old that is', () => {
    expect(textOf().split('\n')).toEqual([
      'AutomationIdentity finance/poster',
      '',
      'Who',
      '  Purpose     posts invoices',
      '  Owner       finance, a@example.com, not said',
      '  Created     2026-05-01T00:00:00Z (2 days ago)',
      '  Changed by  alice',
      '  State       no operator has looked at it yet',
      '',
      'May do, as declared',
      '  get, list configmaps: its settings',
      '',
      'May do besides, granted by others',
      '  nothing but what everybody may',
      '',
      'Credentials',
      '  erp (Password, Secret aid.poster.erp): changed 2026-05-03T11:58:30Z (1m ago), rotation 24h',
      '  old (Existing, Secret by-hand): changed not known, not rotated by itself, kept by Manager helm',
      '',
      'Tokens for runners outside of pods',
      '  ci for ci, good for the Kubernetes API: expires 2026-05-03T13:00:00Z',
      '',
      'May connect to',
      '  no Workflow of this name',
      '',
      'Last use',
      '  Pods         none is there: when one last ran is not known here',
      "  Rights       not known here: the API server's audit log knows when one was last used",
      '  Credentials  not known here: the system that a value opens knows who came with it',
      '',
      'Reviews',
      '  No reviews are asked for.',
      '',
      `Digest of what it may do: ${digestOf([rule], [], [])}`,
    ]);
  });

  it('shows every right that others grant, whole', () => {
    expect(textOf({ beyond: [excess] })).toContain(
      [
        '  RoleBinding sales/wide (ClusterRole edit) in sales, by the group system:serviceaccounts:',
        '    patch a, b, c, d, e of apps',
        '    get /logs',
      ].join('\n'),
    );
  });

  it('says so where the reader may not list that, and what the operator found', () => {
    const conditions = [
      {
        type: 'ExcessPermissions',
        status: 'True' as const,
        reason: 'GrantedElsewhere',
        message: 'RoleBinding x allows more.',
        lastTransitionTime: '2026-05-01T00:00:00Z',
      },
    ];
    const text = textOf({
      beyond: undefined,
      identity: { ...identity, status: { ...identity.status, conditions } },
    });
    expect(text).toContain('RoleBinding x allows more.\n  You may not list');
  });

  it('shows where it may connect', () => {
    const egress = [
      {
        cidr: '203.0.113.0/24',
        except: ['203.0.113.7/32'],
        ports: [
          { port: 443, protocol: 'TCP' as const },
          { port: 8000, endPort: 8010, protocol: 'UDP' as const },
        ],
        reason: 'the ERP',
      },
      { namespace: 'queue', podSelector: { matchLabels: { app: 'mq' } }, reason: 'jobs' },
    ];
    const text = textOf({
      workflow: { metadata: { name: 'poster' }, spec: { targets: [], egress } },
    });
    expect(text).toContain(
      '  203.0.113.0/24 except 203.0.113.7/32, TCP 443, UDP 8000-8010: the ERP\n  pods of namespace queue with app=mq, all ports: jobs',
    );
  });

  it('shows the last reviews, the latest first', () => {
    const reviews = Array.from({ length: 7 }, (_, day) => ({
      metadata: { name: `r${day}`, creationTimestamp: `2026-04-0${day + 1}T00:00:00Z` },
      spec: {
        identity: 'poster',
        decision: 'Keep' as const,
        reason: `reason ${day}`,
        digest: '',
        reviewer: 'bob',
      },
    }));
    const text = textOf({ reviews });
    expect(text).toContain(
      '  2026-04-07T00:00:00Z (26 days ago): Keep by bob: reason 6\n  2026-04-06T00:00:00Z',
    );
    expect(text).toContain('and 2 older ones');
    expect(text).not.toContain('reason 1');
  });

  it.each<[string, Partial<ReviewFacts>, string]>([
    ['as the operator has it', {}, 'Current'],
    ['others grant something else', { beyond: [excess] }, 'Stale'],
    ['it can’t be compared', { beyond: undefined }, 'Current'],
    ['nothing is published', { identity: { ...identity, status: {} } }, 'Unpublished'],
    [
      'the spec has changed since',
      { identity: { ...identity, metadata: { ...identity.metadata, generation: 4 } } },
      'Stale',
    ],
  ])('knows whether what it shows is what a decision would name: %s', (_, parts, state) => {
    expect(reviewReport({ ...facts, ...parts }).state).toBe(state);
  });
});

describe('the last use', () => {
  const pod = (phase: string, creationTimestamp: string): Pod => ({
    metadata: { name: 'p', namespace: 'finance', creationTimestamp },
    status: { phase },
  });

  it.each<[string, ReviewFacts['pods'], string]>([
    ['may not be asked for', undefined, 'Pods         not known: you may not list pods here'],
    ['left no pod', [], 'Pods         none is there: when one last ran is not known here'],
    [
      'is told by the latest pod',
      [pod('Running', '2026-05-03T10:00:00Z'), pod('Succeeded', '2026-05-03T11:00:00Z')],
      'Pods         1 run as it now, the latest of 2 was created 2026-05-03T11:00:00Z (1h ago)',
    ],
  ])('%s', (_what, pods, says) => {
    expect(textOf({ pods })).toContain(says);
  });

  it('of rights and credentials is said not to be known', () => {
    expect(textOf()).toContain('Rights       not known here');
    expect(textOf()).toContain('Credentials  not known here');
  });
});
