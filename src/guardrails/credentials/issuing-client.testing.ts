import { createHash } from 'node:crypto';
import type { KubeObject, TokenRequest, TokenReview } from '../../api/objects.ts';
import { resources, type Resource } from '../../api/resources.ts';
import type { WriteOptions } from '../../runtime/client.ts';
import { ApiError } from '../../runtime/errors.ts';
import { MemoryClient } from '../identity/memory-client.testing.ts';
import { readClaims } from './token.ts';

/** A fake API server that issues tokens bound to Secrets, and reviews them, by its own clock. */
export class IssuingClient extends MemoryClient {
  /** Those of the API server itself. */
  readonly apiAudiences = new Set(['https://kubernetes.default.svc']);
  /** Every token that was ever issued. */
  readonly issued: string[] = [];
  /** Seconds that tokens live for; `undefined`: as long as was asked for. */
  lifeSeconds: number | undefined;
  /** Tokens that a cache remembers as good. */
  readonly remembered = new Set<string>();
  /** Whether it answers reviews. */
  isReviewing = true;
  readonly #serverClock: () => number;

  constructor(serverClock: () => number) {
    super(serverClock);
    this.#serverClock = serverClock;
  }

  override async create<T extends KubeObject>(
    resource: Resource<T>,
    body: T,
    options?: WriteOptions,
  ): Promise<T> {
    /* oxlint-disable typescript/no-unsafe-type-assertion -- the resource says what it is */
    if (resource.kind === 'TokenReview') return this.#review(body as never) as never;
    if (options?.subresource !== 'token') return super.create(resource, body);
    return this.#issue(body as never) as never;
    /* oxlint-enable typescript/no-unsafe-type-assertion */
  }

  /** Whether the API server accepts a token, for any of these audiences. */
  accepts(token: string, audiences: readonly string[]): boolean {
    const claims = readClaims(token);
    if (claims === undefined || !this.issued.includes(token)) return false;
    const isStanding =
      this.all(resources.secrets).some(({ metadata }) => metadata.uid === claims.secretUid) &&
      this.all(resources.serviceAccounts).some(
        ({ metadata }) => metadata.uid === claims.accountUid,
      );
    return (
      claims.audiences.some((audience) => audiences.includes(audience)) &&
      (this.remembered.has(token) || (isStanding && this.#serverClock() < claims.expiresAt))
    );
  }

  #review(body: TokenReview): TokenReview {
    if (!this.isReviewing) throw refusal(503, 'ServiceUnavailable');
    const { token, audiences = [...this.apiAudiences] } = body.spec;
    return { ...body, status: { authenticated: this.accepts(token, audiences) } };
  }

  #issue(body: TokenRequest): TokenRequest {
    const { metadata, spec } = body;
    const { namespace = '', name, uid } = metadata;
    const { boundObjectRef, audiences, expirationSeconds } = spec;
    const write = { verb: 'create', kind: 'TokenRequest', name, subresource: 'token' } as const;
    this.writes.push(write);
    this.beforeWrite(write);
    const account = this.find(resources.serviceAccounts, { namespace, name });
    const secret = this.find(resources.secrets, { namespace, name: boundObjectRef.name });
    if (account === undefined || secret === undefined) throw refusal(404, 'NotFound');
    if (account.metadata.uid !== uid || secret.metadata.uid !== boundObjectRef.uid) {
      throw refusal(409, 'Conflict');
    }
    const iat = Math.floor(this.#serverClock() / 1000);
    const payload = {
      aud: audiences,
      iat,
      exp: iat + (this.lifeSeconds ?? expirationSeconds),
      'kubernetes.io': {
        namespace,
        secret: { name: secret.metadata.name, uid: secret.metadata.uid },
        serviceaccount: { name, uid },
      },
    };
    const signed = Buffer.from(JSON.stringify(payload)).toString('base64url');
    const signature = createHash('sha256').update(`${signed} ${this.issued.length}`).digest('hex');
    const token = `eyJhbGciOiJub25lIn0.${signed}.${signature}`;
    this.issued.push(token);
    this.afterWrite(write);
    return { ...body, status: { token } };
  }
}

function refusal(status: number, reason: string): ApiError {
  return new ApiError(reason, { status, reason });
}
