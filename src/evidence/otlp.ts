import type { Logger as OtlpLogger, SeverityNumber } from '@opentelemetry/api';
import type { LogRecordExporter, LoggerProvider } from '@opentelemetry/sdk-logs';
import type { Logger } from '../observability/logger.ts';
import { readRecord, type Entry } from './record.ts';

export interface OtlpForwarderOptions {
  /** Base URL of an OTLP/HTTP receiver; `/v1/logs` is appended. */
  endpoint: string;
  logger: Logger;
  metrics: OtlpMetrics;
  version: string;
  /** Name of this replica. */
  instance: string;
  /** Namespace of the operator. */
  namespace: string;
  /** Records that wait at a time; beyond, they are dropped. Default 4096. */
  maxPending?: number;
  /** Time that one request may take, with its retries; milliseconds, default 10,000. */
  timeoutMs?: number;
}

/** What the forwarder reports to the metrics. */
export interface OtlpMetrics {
  countForwarded(count: number): void;
  countNotForwarded(count: number): void;
}

/** Records of one request. */
const batchSize = 256;
/** How long records are gathered; milliseconds. */
const batchMs = 500;

/**
 * Sends a copy of each record to an OTLP receiver, as a log record whose body is the text that was
 * hashed. The chain doesn't depend on it: nothing waits, nothing throws, and what the receiver
 * doesn't take in time is dropped and counted.
 *
 * Headers, certificates and compression come from the variables of the OpenTelemetry
 * specification (`OTEL_EXPORTER_OTLP_HEADERS` and so on).
 */
export class OtlpForwarder {
  readonly #options: OtlpForwarderOptions;
  readonly #maxPending: number;
  #pending = 0;
  #isFailing = false;
  #provider: LoggerProvider | undefined;
  #log: OtlpLogger | undefined;
  #severities: typeof SeverityNumber | undefined;

  constructor(options: OtlpForwarderOptions) {
    this.#options = options;
    this.#maxPending = options.maxPending ?? 4_096;
  }

  /** Loads what it needs, which nobody else does. Never rejects. */
  async open(): Promise<void> {
    const { endpoint, logger, version, instance, namespace, timeoutMs = 10_000 } = this.#options;
    try {
      const [api, { LoggerProvider, BatchLogRecordProcessor }, { OTLPLogExporter }, resources] =
        await Promise.all([
          import('@opentelemetry/api'),
          import('@opentelemetry/sdk-logs'),
          import('@opentelemetry/exporter-logs-otlp-http'),
          import('@opentelemetry/resources'),
        ]);
      const exporter = new OTLPLogExporter({
        url: `${endpoint.replace(/\/+$/, '')}/v1/logs`,
        timeoutMillis: timeoutMs,
        concurrencyLimit: 1,
      });
      this.#provider = new LoggerProvider({
        resource: resources.resourceFromAttributes({
          'service.name': 'automation-guardrails',
          'service.version': version,
          'service.instance.id': instance,
          'k8s.namespace.name': namespace,
        }),
        processors: [
          new BatchLogRecordProcessor({
            exporter: this.#counting(exporter),
            maxQueueSize: this.#maxPending,
            maxExportBatchSize: Math.min(batchSize, this.#maxPending),
            scheduledDelayMillis: batchMs,
            exportTimeoutMillis: timeoutMs,
          }),
        ],
      });
      this.#severities = api.SeverityNumber;
      this.#log = this.#provider.getLogger('automation-guardrails/evidence', version);
    } catch (error) {
      logger.error('Evidence is not sent over OTLP', { error });
    }
  }

  /** Sends what stands in the chain by now. Returns at once. */
  forward(entries: readonly Entry[]): void {
    const room = this.#log === undefined ? 0 : this.#maxPending - this.#pending;
    for (const { hash, record: body } of entries.slice(0, Math.max(0, room))) {
      const record = readRecord(body);
      if (record === undefined) continue;
      const { chain, sequence, action, outcome, actor, time, incident, change, environment } =
        record;
      const severity = this.#severities?.[outcome === 'Failed' ? 'WARN' : 'INFO'];
      this.#pending += 1;
      this.#log?.emit({
        timestamp: new Date(time),
        eventName: 'automationguardrails.evidence',
        ...(severity !== undefined && {
          severityNumber: severity,
          severityText: outcome === 'Failed' ? 'WARN' : 'INFO',
        }),
        body,
        attributes: {
          'evidence.hash': hash,
          'evidence.chain': chain,
          'evidence.sequence': sequence,
          'evidence.action': action,
          'evidence.outcome': outcome,
          'evidence.actor': actor.name,
          'evidence.actor.basis': actor.basis,
          ...(incident !== undefined && { 'evidence.incident': incident }),
          ...(change !== undefined && { 'evidence.change': change }),
          ...(environment !== undefined && { 'deployment.environment.name': environment }),
        },
      });
    }
    const dropped = entries.length - Math.max(0, Math.min(room, entries.length));
    if (dropped > 0) this.#options.metrics.countNotForwarded(dropped);
  }

  /** Sends what waits, for two seconds at most. Never rejects. */
  async close(): Promise<void> {
    const closed = this.#provider?.shutdown().catch(() => undefined);
    await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 2_000).unref())]);
  }

  /** The same exporter, whose results are counted. */
  #counting(exporter: LogRecordExporter): LogRecordExporter {
    const { metrics, logger } = this.#options;
    return {
      export: (records, done) => {
        exporter.export(records, (result) => {
          this.#pending -= records.length;
          const { code }: { code: number } = result;
          const isSent = code === 0;
          if (isSent) metrics.countForwarded(records.length);
          else metrics.countNotForwarded(records.length);
          // Once, and not with each batch.
          if (!isSent && !this.#isFailing) {
            logger.warn('Evidence could not be sent over OTLP', { error: result.error });
          }
          this.#isFailing = !isSent;
          done(result);
        });
      },
      forceFlush: () => exporter.forceFlush(),
      shutdown: () => exporter.shutdown(),
    };
  }
}
