import type { PooledKubeConfig } from '../runtime/kube-config.ts';
import { MalformedResponseError } from '../runtime/errors.ts';

/** What an API server says of itself. */
export interface ServerInfo {
  /** Such as `v1.36.3`. */
  gitVersion: string;
  major: number;
  minor: number;
  /** Milliseconds since the epoch, by its clock; whole seconds. */
  date: number;
  /** Milliseconds since the epoch, by ours, at the same time. */
  localDate: number;
}

const timeoutMs = 10_000;
const maxResponseBytes = 64 * 1024;

/**
 * Asks for version and time.
 *
 * @throws MalformedResponseError where it answers with something else
 */
export async function serverInfo(kubeConfig: PooledKubeConfig): Promise<ServerInfo> {
  const { server, headers, dispatcher } = await kubeConfig
    .createPool({ maxResponseSize: maxResponseBytes })
    .connect();
  const { origin, pathname } = new URL(`${server}/version`);
  const asked = Date.now();
  const response = await dispatcher.request({
    origin,
    path: pathname,
    method: 'GET',
    headers: { ...headers, accept: 'application/json' },
    signal: AbortSignal.timeout(timeoutMs),
  });
  const localDate = (asked + Date.now()) / 2;
  const body = await response.body.text();
  const version = versionIn(body);
  const date = Date.parse(String(response.headers['date']));
  if (response.statusCode !== 200 || version === undefined || Number.isNaN(date)) {
    throw new MalformedResponseError(
      `${server}/version doesn't answer as an API server does (${response.statusCode})`,
    );
  }
  return { ...version, date, localDate };
}

function versionIn(body: string): Pick<ServerInfo, 'gitVersion' | 'major' | 'minor'> | undefined {
  const found = /"gitVersion":\s*"(v(\d+)\.(\d+)[^"]*)"/.exec(body);
  if (found === null) return undefined;
  const [, gitVersion = '', major, minor] = found;
  return { gitVersion, major: Number(major), minor: Number(minor) };
}
