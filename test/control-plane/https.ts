import { request as httpsRequest } from 'node:https';

/** What a server answered. */
export interface Answer {
  readonly status: number;
  readonly body: string;
}

export interface RequestOptions {
  /** Default GET. */
  method?: string;
  /** PEM: what the server's certificate is verified with. */
  ca: string;
  /** Bearer token. */
  token?: string;
  headers?: Record<string, string | readonly string[]>;
  /** Sent as it is when it is text, otherwise as JSON. */
  body?: object | string;
  /** Milliseconds of silence after which it fails; default 30 000. */
  timeoutMs?: number;
}

/** One request, on a connection of its own. @throws what Node throws where there is no answer */
export function request(url: string, options: RequestOptions): Promise<Answer> {
  const { method = 'GET', ca, token, headers, body, timeoutMs = 30_000 } = options;
  return new Promise((resolve, reject) => {
    const outgoing = httpsRequest(url, {
      method,
      ca,
      timeout: timeoutMs,
      // A pooled connection would outlive the restart of the server at its other end.
      agent: false,
      headers: {
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
    });
    outgoing.once('response', (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.once('error', reject);
      response.once('end', () => resolve({ status: response.statusCode ?? 0, body: text }));
    });
    outgoing.once('timeout', () => outgoing.destroy(new Error('no answer')));
    outgoing.once('error', reject);
    outgoing.end(typeof body === 'object' ? JSON.stringify(body) : body);
  });
}
