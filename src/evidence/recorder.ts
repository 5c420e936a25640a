import { setTimeout as delay } from 'node:timers/promises';
import type { ClusterKillSwitch } from '../api/cluster-kill-switch.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import type { Logger } from '../observability/logger.ts';
import type { KubeClient } from '../runtime/client.ts';
import type { Drift } from '../runtime/drift.ts';
import { Anchors } from './anchors.ts';
import type { ChainLimits, Committed } from './chain-writer.ts';
import type { Told } from './operator-facts.ts';
import { EvidenceLog, type EvidenceMetrics } from './log.ts';
import { EvidenceObserver, type EvidenceCaches } from './observer.ts';
import { OtlpForwarder, type OtlpMetrics } from './otlp.ts';
import { SigningKeys } from './signing-keys.ts';

export interface EvidenceRecorderOptions {
  client: KubeClient;
  caches: EvidenceCaches;
  logger: Logger;
  metrics: EvidenceMetrics & OtlpMetrics;
  /** Base URL of an OTLP receiver; absent: none. */
  otlpEndpoint?: string | undefined;
  operatorNamespace: string;
  /** Name of this replica. */
  instance: string;
  version: string;
  limits: Omit<ChainLimits, 'segmentBytes'>;
  /** Age at which the signing key is replaced; milliseconds. */
  rotateKeyAfterMs: number;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/**
 * Of the records in one segment. Each append is validated and stored with all that stands there, so
 * the cost of a record grows with it; each new segment costs two more writes.
 */
const segmentBytes = 96 * 1024;
/** How often old evidence, old anchors and an old key are looked for. */
const upkeepMs = 6 * 3_600_000;

/** Records everything: watches, writes, signs, anchors, and lets go. */
export class EvidenceRecorder {
  readonly #options: EvidenceRecorderOptions;
  readonly #log: EvidenceLog;
  readonly #anchors: Anchors;
  readonly #keys: SigningKeys;
  readonly #observer: EvidenceObserver;
  readonly #otlp: OtlpForwarder | undefined;

  constructor(options: EvidenceRecorderOptions) {
    const { client, caches, logger, metrics, operatorNamespace, limits, clock, instance } = options;
    this.#options = options;
    this.#otlp =
      options.otlpEndpoint === undefined
        ? undefined
        : new OtlpForwarder({
            endpoint: options.otlpEndpoint,
            logger,
            metrics,
            version: options.version,
            instance,
            namespace: operatorNamespace,
          });
    this.#keys = new SigningKeys({
      client,
      namespace: operatorNamespace,
      rotateAfterMs: options.rotateKeyAfterMs,
      clock,
    });
    this.#anchors = new Anchors({
      client,
      logger,
      namespace: operatorNamespace,
      retentionMs: limits.retentionMs,
      clock,
    });
    this.#log = new EvidenceLog({
      client,
      signingKey: () => this.#keys.current(),
      limits: { ...limits, segmentBytes },
      logger,
      metrics,
      clock,
      onCommitted: (committed) => this.#committed(committed),
    });
    this.#observer = new EvidenceObserver({
      client,
      log: this.#log,
      caches,
      operatorNamespace,
      instance,
      version: options.version,
      clock,
    });
  }

  /** What a controller told as an event. Never throws. */
  told(told: Told): void {
    this.#observer.told(told);
  }

  /** An object that somebody changed was repaired. Never throws. */
  drifted(drift: Drift): void {
    this.#observer.drifted(drift);
  }

  /** @returns whether a release may go on: what the kill says stands in the log */
  keepKill(killSwitch: KillSwitch | ClusterKillSwitch, signal: AbortSignal): Promise<boolean> {
    return this.#observer.keepKill(killSwitch, signal);
  }

  /** Writes and anchors until the signal aborts, then what waits. Of every replica. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { instance, version, clock } = this.#options;
    const started = `${new Date(clock()).toISOString()} ${version} ${instance}`.slice(0, 120);
    this.#observer.operator('operator', started, 'OperatorStarted', {
      instance,
      version,
    });
    await this.#otlp?.open();
    await Promise.all([this.#log.run(signal), this.#anchors.run(signal)]);
    await Promise.all([this.#anchors.write(AbortSignal.timeout(2_000)), this.#otlp?.close()]);
  }

  /** Tells everything, and keeps what is kept in bounds, until the signal aborts. Of the leader. Never rejects. */
  async lead(signal: AbortSignal): Promise<void> {
    const { logger } = this.#options;
    this.#observer.lead(signal);
    while (!signal.aborted) {
      try {
        const fingerprint = await this.#keys.rotateIfDue();
        this.#observer.operator('signing-key', fingerprint, 'SigningKeyUsed', { fingerprint });
      } catch (error) {
        logger.warn('The signing key of evidence could not be looked at', { error });
      }
      await this.#log.expire(signal);
      await this.#anchors.expire(signal);
      await delay(upkeepMs, undefined, { signal }).catch(() => undefined);
    }
  }

  #committed({ chain, incarnation, entries, head }: Committed): void {
    const { logger } = this.#options;
    this.#anchors.note({ chain, incarnation }, head);
    // The same record for whoever reads the log stream, by the same hash.
    for (const { record, hash } of entries) logger.info('Evidence recorded', { hash, record });
    this.#otlp?.forward(entries);
  }
}
