import { createHash } from 'node:crypto';
import type { AutomationIdentity, GeneratedSecret } from '../../api/automation-identity.ts';
import { annotation } from '../../api/names.ts';
import type { Secret } from '../../api/objects.ts';
import type { Resource } from '../../api/resources.ts';
import type { Logger } from '../../observability/logger.ts';
import { dropOldest } from '../../runtime/bounded-map.ts';
import type { KubeClient } from '../../runtime/client.ts';
import type { Problem } from '../requirements.ts';
import { refusalOf, refusedMs } from './refusal.ts';

/** Kinds of the External Secrets Operator that read a credential, or pass it on. */
const kinds = {
  ExternalSecret: {
    group: 'external-secrets.io',
    version: 'v1',
    kind: 'ExternalSecret',
    plural: 'externalsecrets',
    namespaced: true,
  },
  PushSecret: {
    group: 'external-secrets.io',
    version: 'v1alpha1',
    kind: 'PushSecret',
    plural: 'pushsecrets',
    namespaced: true,
  },
} as const satisfies Record<string, Resource>;

/** Objects that are remembered as told of a value. */
const maxTold = 10_000;
/** Longest name of an annotation, behind its prefix. */
const maxNameLength = 63;

/**
 * The annotation by which an object is told that a credential has another value. The External
 * Secrets Operator refreshes an object when any annotation of it changes; each credential has one of
 * its own, so that two that one object reads don't take turns.
 *
 * @see https://external-secrets.io/latest/introduction/faq
 */
export function refreshAnnotation(secretName: string): string {
  const digest = createHash('sha256').update(secretName).digest('hex').slice(0, 12);
  const name =
    secretName.length <= maxNameLength
      ? secretName
      : `${secretName.slice(0, maxNameLength - 13)}-${digest}`;
  return `force-sync.automationguardrails.dev/${name}`;
}

/** What a look at those who are to be told has found. */
export interface RefreshOutcome {
  problem: Problem | undefined;
  /** Milliseconds since the epoch at which to look again. */
  dueAt: number | undefined;
}

export interface ExternalRefreshOptions {
  client: Pick<KubeClient, 'get' | 'mergePatch'>;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/**
 * Tells objects of the External Secrets Operator, which the spec names, that a credential has
 * another value: each once for a value, whatever is cut off between.
 */
export class ExternalRefresh {
  readonly #options: ExternalRefreshOptions;
  /** Of which value an object was told last. */
  readonly #told = new Map<string, string>();

  constructor(options: ExternalRefreshOptions) {
    this.#options = options;
  }

  /**
   * @param live the Secret of the credential, whose value is everywhere where it has to be
   * @throws ApiError for what a retry may cure
   */
  async refresh(
    { name: credential, rotation }: GeneratedSecret,
    { metadata }: Secret,
    { identity, signal, log }: { identity: AutomationIdentity; signal: AbortSignal; log: Logger },
  ): Promise<RefreshOutcome> {
    const { clock } = this.#options;
    const { namespace = '' } = identity.metadata;
    const published = metadata.annotations?.[annotation.rotatedAt];
    if (published === undefined) return { problem: undefined, dueAt: undefined };
    const key = refreshAnnotation(metadata.name);
    const failed: string[] = [];
    for (const { kind, name } of rotation?.refresh ?? []) {
      const id = `${kind} ${namespace}/${name} ${key}`;
      if (this.#told.get(id) === published) continue;
      const failure = await this.#tell({ kind, namespace, name }, key, published, signal);
      if (failure === undefined) {
        this.#remember(id, published);
        log.info('External secret told of a value', { credential, kind, name });
      } else {
        failed.push(`${kind} ${name} ${failure}`);
      }
    }
    if (failed.length === 0) return { problem: undefined, dueAt: undefined };
    return {
      problem: {
        reason: 'ExternalSecretNotRefreshed',
        message: `Not told of the value of credential ${credential}: ${failed.join(', ')}.`,
      },
      dueAt: clock() + refusedMs,
    };
  }

  /** @returns why it couldn't be told */
  async #tell(
    { kind, namespace, name }: { kind: keyof typeof kinds; namespace: string; name: string },
    key: string,
    published: string,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const { client } = this.#options;
    const resource: Resource = kinds[kind];
    const at = { namespace, name };
    try {
      const found = await client.get(resource, at, { metadataOnly: true, signal });
      if (found === undefined) return "isn't there";
      const { uid, annotations } = found.metadata;
      if (annotations?.[key] === published) return undefined;
      const patch = { metadata: { uid, annotations: { [key]: published } } };
      await client.mergePatch(resource, at, patch, { signal });
      return undefined;
    } catch (error) {
      const { status, reason } = refusalOf(error, `${kind} ${name} couldn't be told`);
      return `can't be annotated (${status} ${reason})`;
    }
  }

  #remember(id: string, published: string): void {
    this.#told.delete(id);
    this.#told.set(id, published);
    dropOldest(this.#told, maxTold);
  }
}
