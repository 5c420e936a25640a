import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { annotation, label, signingKeySecret } from '../api/names.ts';
import type { Secret } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import type { KubeClient } from '../runtime/client.ts';
import { isAlreadyExists, isNotFound } from '../runtime/errors.ts';
import { fingerprintOf, publicKeyOf, type SigningKey } from './head.ts';

/** The ConfigMap that holds every public key that ever signed, by its fingerprint. */
const publicKeysConfigMap = 'automation-guardrails-evidence-keys';

export interface SigningKeysOptions {
  client: Pick<KubeClient, 'get' | 'create' | 'mergePatch'>;
  /** The operator's. */
  namespace: string;
  /** Age at which a key is replaced; milliseconds. */
  rotateAfterMs: number;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/** After which the Secret is read again: another replica may have replaced the key. */
const rereadMs = 600_000;
/** Keys that the ConfigMap has room for. */
const maxKeys = 1_000;

/**
 * The key that signs heads of evidence. A public key is written down before its private half is
 * used, and stays for good, so that what it signed can be checked for as long as it is kept.
 */
export class SigningKeys {
  readonly #options: SigningKeysOptions;
  #current: { key: SigningKey; madeAt: number; readAt: number } | undefined;

  constructor(options: SigningKeysOptions) {
    this.#options = options;
  }

  /** The key to sign with now. @throws ApiError where the API server doesn't let us */
  async current(): Promise<SigningKey> {
    const now = this.#options.clock();
    if (this.#current !== undefined && now - this.#current.readAt < rereadMs) {
      return this.#current.key;
    }
    const secret = (await this.#read()) ?? (await this.#make());
    return this.#remember(secret).key;
  }

  /** Replaces the key where it is old. @returns the fingerprint of the one that is used now */
  async rotateIfDue(): Promise<string> {
    const { rotateAfterMs, clock } = this.#options;
    await this.current();
    if (this.#current !== undefined && clock() - this.#current.madeAt >= rotateAfterMs) {
      const stored = await this.#read();
      const isOurs =
        stored !== undefined && this.#remember(stored).madeAt + rotateAfterMs <= clock();
      if (isOurs) {
        const { namespace, client } = this.#options;
        const { key, secret } = this.#fresh();
        await this.#publish(key.publicKey);
        const { uid, resourceVersion } = stored.metadata;
        const { annotations } = secret.metadata;
        const replaced = await client.mergePatch(
          resources.secrets,
          { namespace, name: signingKeySecret },
          { metadata: { uid, resourceVersion, annotations }, data: secret.data },
        );
        this.#remember(replaced);
      }
    }
    return fingerprintOf((await this.current()).publicKey);
  }

  async #read(): Promise<Secret | undefined> {
    const { client, namespace } = this.#options;
    return await client.get(resources.secrets, { namespace, name: signingKeySecret });
  }

  async #make(): Promise<Secret> {
    const { key, secret } = this.#fresh();
    await this.#publish(key.publicKey);
    try {
      return await this.#options.client.create(resources.secrets, secret);
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      const theirs = await this.#read();
      if (theirs === undefined) throw error;
      return theirs;
    }
  }

  #fresh(): { key: SigningKey; secret: Secret } {
    const { namespace, clock } = this.#options;
    const { privateKey } = generateKeyPairSync('ed25519');
    const der = privateKey.export({ format: 'der', type: 'pkcs8' });
    return {
      key: { privateKey, publicKey: publicKeyOf(privateKey) },
      secret: {
        metadata: {
          name: signingKeySecret,
          namespace,
          annotations: { [annotation.rotatedAt]: new Date(clock()).toISOString() },
        },
        type: 'Opaque',
        data: { 'pkcs8.der': der.toString('base64') },
      },
    };
  }

  async #publish(publicKey: string): Promise<void> {
    const { client, namespace, clock } = this.#options;
    const value = `${publicKey} ${new Date(clock()).toISOString()}`;
    const data = { [fingerprintOf(publicKey)]: value };
    const at = { namespace, name: publicKeysConfigMap };
    const known = await client.get(resources.configMaps, at);
    if (Object.keys(known?.data ?? {}).length >= maxKeys) {
      throw new RangeError(`${publicKeysConfigMap} has no room for another key`);
    }
    if (known === undefined) {
      try {
        await client.create(resources.configMaps, {
          metadata: { ...at, labels: { [label.evidence]: 'keys' } },
          data,
        });
        return;
      } catch (error) {
        if (!isAlreadyExists(error)) throw error;
      }
    }
    await client.mergePatch(resources.configMaps, at, { data });
  }

  #remember({ data = {}, metadata }: Secret): { key: SigningKey; madeAt: number } {
    const der = Buffer.from(data['pkcs8.der'] ?? '', 'base64');
    const privateKey = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
    const madeAt = Date.parse(metadata.annotations?.[annotation.rotatedAt] ?? '');
    const now = this.#options.clock();
    const key = { privateKey, publicKey: publicKeyOf(privateKey) };
    this.#current = { key, madeAt: Number.isFinite(madeAt) ? madeAt : now, readAt: now };
    return this.#current;
  }
}

/** The keys in the ConfigMap, Base64; empty where it isn't there. */
export async function publicKeys(
  client: Pick<KubeClient, 'get'>,
  namespace: string,
): Promise<string[]> {
  try {
    const found = await client.get(resources.configMaps, { namespace, name: publicKeysConfigMap });
    return Object.values(found?.data ?? {}).map((value) => value.split(' ')[0] ?? '');
  } catch (error) {
    if (isNotFound(error)) return [];
    throw error;
  }
}
