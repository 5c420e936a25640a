import { describe, expect, it } from 'vitest';
import type { RecordedPart, WorkflowRevision } from '../../api/workflow-revision.ts';
import { gitManagerOf } from './git.ts';
import { restorePlan, type RestorePlan } from './restore.ts';

const of = (name: string, digest: string, more: Partial<RecordedPart> = {}): RecordedPart => ({
  name,
  digest,
  content: JSON.stringify({ digest }),
  ...more,
});

function planned(then: RecordedPart[], now: RecordedPart[]): RestorePlan {
  const revision: Pick<WorkflowRevision, 'spec'> = {
    spec: { workflow: 'a', revision: 2, digest: 'd', authenticated: [], changers: [], parts: then },
  };
  return restorePlan(revision, now);
}

describe('going back to a revision', () => {
  it('writes what differs, and what pods run last', () => {
    expect(
      planned(
        [
          of('Workflow', '1'),
          of('AutomationIdentity', '1'),
          of('CronJob c', '1'),
          of('Deployment d', '1'),
        ],
        [
          of('Workflow', '2'),
          of('AutomationIdentity', '2'),
          of('CronJob c', '1'),
          of('Deployment d', '2'),
        ],
      ),
    ).toEqual({
      writes: [
        { part: 'AutomationIdentity', value: { digest: '1' } },
        { part: 'Workflow', value: { digest: '1' } },
        { part: 'Deployment d', value: { digest: '1' } },
      ],
      obstacles: [],
      notes: [],
    });
  });

  it.each<[string, RecordedPart, RecordedPart[]]>([
    ['was too long', of('Deployment d', '1', { content: undefined }), [of('Deployment d', '2')]],
    [
      'env[0].value',
      of('Deployment d', '1', { redacted: ['env[0].value'] }),
      [of('Deployment d', '2')],
    ],
    ['is gone', of('Deployment d', '1'), []],
    ["can't be changed", of('Job j', '1'), [of('Job j', '2')]],
    ["can't be read", of('Workflow', '1', { content: '{' }), [of('Workflow', '2')]],
  ])('is refused where something %s', (words, then, now) => {
    expect(planned([then], now).obstacles.join(' ')).toContain(words);
  });

  it('says what comes on top, and asks for nothing of what is the same', () => {
    const same = of('Deployment d', '1', { content: undefined });
    expect(planned([same], [same, of('Deployment e', '1')])).toEqual({
      writes: [],
      obstacles: [],
      notes: ["Deployment e wasn't a part of revision 2."],
    });
  });
});

describe('what applies an object from Git', () => {
  it.each<[string | undefined, object]>([
    [
      'Argo CD application billing',
      {
        annotations: { 'argocd.argoproj.io/tracking-id': 'billing:apps/Deployment:finance/poster' },
      },
    ],
    [
      'Flux Kustomization flux-system/apps',
      {
        labels: {
          'kustomize.toolkit.fluxcd.io/name': 'apps',
          'kustomize.toolkit.fluxcd.io/namespace': 'flux-system',
        },
      },
    ],
    [
      'Flux HelmRelease flux-system/apps',
      {
        labels: {
          'helm.toolkit.fluxcd.io/name': 'apps',
          'helm.toolkit.fluxcd.io/namespace': 'flux-system',
        },
      },
    ],
    ['Argo CD', { managedFields: [{ manager: 'kubectl' }, { manager: 'argocd-controller' }] }],
    ['Flux', { managedFields: [{ manager: 'kustomize-controller' }] }],
    [
      undefined,
      {
        labels: { 'app.kubernetes.io/instance': 'billing' },
        managedFields: [{ manager: 'helm' }, {}],
      },
    ],
  ])('%s', (manager, metadata) => {
    expect(gitManagerOf({ metadata: { name: 'poster', ...metadata } })).toBe(manager);
  });
});
