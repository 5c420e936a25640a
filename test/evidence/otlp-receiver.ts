import { once } from 'node:events';
import { createServer } from 'node:http';

/** One log record, as OTLP/HTTP with JSON has it. */
export interface ReceivedLog {
  timeUnixNano: string;
  severityText: string;
  body: { stringValue: string };
  attributes: { key: string; value: { stringValue?: string } }[];
}

interface Payload {
  resourceLogs: { scopeLogs: { logRecords: ReceivedLog[] }[] }[];
}

/** A receiver of logs. */
export interface OtlpReceiver {
  /** Base URL. */
  readonly endpoint: string;
  readonly received: ReceivedLog[];
  /** What it answers from now on; `undefined`: nothing at all. At first 200. */
  answer(status: number | undefined): void;
  stop(): Promise<void>;
}

/** Starts a receiver on loopback that keeps what it is sent. Whoever starts it closes it. */
export async function startOtlpReceiver(): Promise<OtlpReceiver> {
  const received: ReceivedLog[] = [];
  let status: number | undefined = 200;
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      if (status === undefined) return;
      if (status === 200 && request.url === '/v1/logs') {
        const payload: Payload = JSON.parse(Buffer.concat(chunks).toString());
        const scopes = payload.resourceLogs.flatMap(({ scopeLogs }) => scopeLogs);
        received.push(...scopes.flatMap(({ logRecords }) => logRecords));
      }
      response.writeHead(status, { 'content-type': 'application/json' }).end('{}');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
  return {
    endpoint: `http://127.0.0.1:${port}`,
    received,
    answer: (next) => (status = next),
    stop: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
