import { cp, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { dump, loadAll } from 'js-yaml';
import { blocksOf, textOf } from '../../src/docs.testing.ts';

/** The part of a manifest by which it is found. */
interface Manifest {
  apiVersion?: string;
  kind?: string;
  metadata?: { name?: string };
}

const root = path.dirname(path.dirname(import.meta.dirname));

/**
 * What docs/guides/gitops.md tells people to copy, so that the tools run just that.
 *
 * @param apiVersion of the manifest
 * @param name `undefined` for a file without one
 * @throws Error when the guide has no such block, or two
 */
export function fromGuide(apiVersion: string, kind: string, name?: string): object {
  const [found, ...others] = blocksOf(textOf('docs/guides/gitops.md'), 'yaml')
    .flatMap((block) => loadAll(block) as Manifest[])
    .filter(
      (one) => one.apiVersion === apiVersion && one.kind === kind && one.metadata?.name === name,
    );
  if (found === undefined || others.length > 0) {
    throw new Error(`the guide has none, or several, of ${apiVersion} ${kind} ${name ?? ''}`);
  }
  return found;
}

/** The GuardrailPolicy of the guide. */
export interface Policy {
  spec: { enforcement: string };
}

/** The policy that the guide shows. */
export function guidesPolicy(): Policy {
  const policy = fromGuide('automationguardrails.dev/v1alpha1', 'GuardrailPolicy', 'default');
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- that is what a policy is
  return policy as Policy;
}

/** The operator's part of the repository that the guide describes: a copy of it, and what is yours. */
export async function writeGuardrails(repository: string, policy = guidesPolicy()): Promise<void> {
  const copy = path.join(repository, 'automation-guardrails');
  for (const folder of ['crds', 'config']) {
    await cp(path.join(root, folder), path.join(copy, folder), { recursive: true });
  }
  await mkdir(path.join(repository, 'guardrails'), { recursive: true });
  const own = {
    'kustomization.yaml': fromGuide('kustomize.config.k8s.io/v1beta1', 'Kustomization'),
    'policy.yaml': policy,
  };
  for (const [name, manifest] of Object.entries(own)) {
    await writeFile(path.join(repository, 'guardrails', name), dump(manifest));
  }
}

/** An automation's folder of that repository, with nothing else in it. */
export async function writeAutomation(
  repository: string,
  folder: string,
  manifests: readonly object[],
): Promise<void> {
  await mkdir(path.join(repository, folder), { recursive: true });
  const text = manifests.map((one) => dump(one)).join('---\n');
  await writeFile(path.join(repository, folder, 'automation.yaml'), text);
}
