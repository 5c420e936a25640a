import { isTrue, conditionOf, type Finding } from '../../api/conditions.ts';
import { annotation } from '../../api/names.ts';
import type { SecretHint } from '../../api/secret-hints.ts';
import type { Workflow } from '../../api/workflow.ts';
import type { Workload } from '../../api/workload.ts';
import { fieldOf, isBlank, type Problem } from '../requirements.ts';
import { some } from '../wording.ts';

type Target = Pick<Workload, 'kind' | 'metadata' | 'secretHints'>;

/** What of the targets looks like a credential, and nobody with the right to has allowed. */
function found(targets: readonly Target[]): { target: Target; hint: SecretHint }[] {
  return targets
    .filter(({ metadata }) => isBlank(metadata.annotations?.[annotation.allowSecretInSpec]))
    .flatMap((target) => (target.secretHints ?? []).map((hint) => ({ target, hint })));
}

/**
 * The condition `SecretInSpec`, which is true when it is bad; `undefined` where nothing is, and
 * nothing was.
 */
export function secretFinding(
  { status }: Workflow,
  targets: readonly Target[],
): Finding | undefined {
  const hints = found(targets);
  const type = 'SecretInSpec';
  if (hints.length > 0) {
    return { type, status: 'True', reason: 'CredentialFound', message: messageOf(hints) };
  }
  if (conditionOf(status?.conditions, type) === undefined) return undefined;
  const message = isTrue(status?.conditions, type)
    ? 'Nothing looks like a credential any more. Whoever could read the object has seen it: rotate it.'
    : (conditionOf(status?.conditions, type)?.message ?? '');
  return { type, status: 'False', reason: 'NoneFound', message };
}

/** What holds a Workflow of some risk, among the things that are missing. */
export function secretInSpec(
  { spec }: Pick<Workflow, 'spec'>,
  targets: readonly Target[],
): Problem | undefined {
  const hints = found(targets);
  if (hints.length === 0 || (fieldOf(spec, 'risk') ?? 'Low') === 'Low') return undefined;
  return { reason: 'SecretInSpec', message: messageOf(hints) };
}

function messageOf(hints: ReturnType<typeof found>): string {
  const places = hints.map(
    ({ target, hint }) =>
      `${target.kind} ${target.metadata.name}, ${hint.place} (looks like ${hint.looksLike})`,
  );
  return `Credentials in the open: ${some(places.toSorted())}. Put each into a Secret, reference it by valueFrom.secretKeyRef, and rotate it: everybody who could read the object has seen it. If it is none, somebody with the verb allow-secret-in-spec sets the annotation ${annotation.allowSecretInSpec} on the workload to why.`;
}
