import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import type { KubeObject } from '../../api/objects.ts';
import { ownersOf } from './pokes.ts';

function deployment(metadata: Partial<KubeObject['metadata']>): KubeObject {
  return { kind: 'Deployment', metadata: { name: 'web', namespace: 'finance', ...metadata } };
}

const tracked = (id: string): KubeObject =>
  deployment({ annotations: { 'argocd.argoproj.io/tracking-id': id } });

describe('who applies an object from elsewhere', () => {
  it.each([
    ['Argo CD', tracked('shop:apps/Deployment:finance/web'), [{ name: 'shop' }]],
    [
      'Argo CD, with the Application elsewhere',
      tracked('team_shop:apps/Deployment:finance/web'),
      [{ namespace: 'team', name: 'shop' }],
    ],
    ['a copy', tracked('shop:apps/Deployment:finance/other'), []],
    ['another kind', tracked('shop:apps/StatefulSet:finance/web'), []],
    ['nonsense', tracked('::'), []],
    ['a name that is none', tracked('../x:apps/Deployment:finance/web'), []],
    [
      'a label that others write too',
      deployment({ labels: { 'app.kubernetes.io/instance': 'shop' } }),
      [{ name: 'shop', resource: { kind: 'Deployment', namespace: 'finance', name: 'web' } }],
    ],
    [
      'Flux',
      deployment({
        labels: {
          'helm.toolkit.fluxcd.io/name': 'shop',
          'helm.toolkit.fluxcd.io/namespace': 'team',
        },
      }),
      [{ tool: 'Flux', namespace: 'team', name: 'shop' }],
    ],
    ['Flux, half', deployment({ labels: { 'helm.toolkit.fluxcd.io/name': 'shop' } }), []],
    ['nobody', deployment({}), []],
  ])('%s', (_, object, owners) => {
    const found = ownersOf([object]);
    expect(found).toHaveLength(owners.length);
    expect(found).toMatchObject(owners);
  });

  it('is named once, and at most 50 times', () => {
    const one = tracked('shop:apps/Deployment:finance/web');
    expect(ownersOf([one, one])).toHaveLength(1);
    const many = Array.from({ length: 80 }, (_, index) =>
      tracked(`shop-${index}:apps/Deployment:finance/web`),
    );
    expect(ownersOf(many)).toHaveLength(50);
  });

  it('is never a path, whatever is written there', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (a, b) => {
        const labels = { 'helm.toolkit.fluxcd.io/name': a, 'helm.toolkit.fluxcd.io/namespace': b };
        const objects = [deployment({ labels }), tracked(`${a}:apps/Deployment:finance/web`)];
        for (const { name, namespace = 'x' } of ownersOf(objects)) {
          expect(`${name}${namespace}`).toMatch(/^[-a-z0-9.]+$/);
        }
      }),
    );
  });
});
