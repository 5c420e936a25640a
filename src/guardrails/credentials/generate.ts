import {
  defaultSecretLength,
  defaultSymbols,
  type GeneratedSecret,
} from '../../api/automation-identity.ts';
import type { Tier } from '../../api/guardrail-policy.ts';
import { markedTokenLength, tokenMarks } from '../../api/token-marks.ts';
import { sshKeyPair } from './ssh-key.ts';

/** Source of cryptographically strong random bytes, as `crypto.randomBytes`. */
export type RandomBytes = (size: number) => Uint8Array;

/** The keys of the Secret of each type; all of them belong to one value. */
export const keysOfType = {
  Password: ['password'],
  Token: ['token'],
  BasicAuth: ['username', 'password'],
  SSHKeyPair: ['ssh-privatekey', 'ssh-publickey'],
} as const satisfies Record<GeneratedSecret['type'], readonly string[]>;

/**
 * A new value: texts by the keys of its type. 32 characters, the default, are 193 bits in a
 * password without a policy. A token is base64url; one of 32 characters has 150 bits or more behind
 * its mark.
 *
 * @param secretName goes into the comment of a key pair, by which people tell keys apart
 * @param tier of the namespace, which a token is marked with
 * @throws Error where the random source yields nothing usable
 */
export function generateValue(
  credential: GeneratedSecret,
  randomBytes: RandomBytes,
  secretName: string,
  tier: Tier,
): Record<string, string> {
  const { type, length = defaultSecretLength, username = '' } = credential;
  switch (type) {
    case 'Password':
      return { password: password(credential, randomBytes) };
    case 'Token':
      return { token: token(length, tier, randomBytes) };
    case 'BasicAuth':
      return { username, password: password(credential, randomBytes) };
    case 'SSHKeyPair': {
      const { privateKey, publicKey } = sshKeyPair(randomBytes, secretName);
      return { 'ssh-privatekey': privateKey, 'ssh-publickey': publicKey };
    }
  }
}

interface CharacterClass {
  characters: string;
  /** Least number of them. */
  least: number;
}

function password(
  { length = defaultSecretLength, characters = {} }: GeneratedSecret,
  randomBytes: RandomBytes,
): string {
  const { lowercase = 0, uppercase = 0, digits = 0, symbols = 0 } = characters;
  const symbolSet = [...new Set(characters.symbolSet ?? defaultSymbols)].join('');
  const classes = [
    { characters: 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', least: uppercase },
    { characters: 'abcdefghijklmnopqrstuvwxyz', least: lowercase },
    { characters: '0123456789', least: digits },
    { characters: symbolSet, least: symbols },
  ];
  const free = classes
    .filter(({ least }) => least === 0)
    .map((each) => each.characters)
    .join('');
  return fromClasses(
    [
      ...classes.filter(({ least }) => least > 0),
      ...(free === '' ? [] : [{ characters: free, least: 0 }]),
    ],
    length,
    randomBytes,
  );
}

/**
 * One of the texts of that length that have enough of each class, all equally likely. How many of
 * each it has is drawn by the number of texts that have so many; then each is drawn, and their
 * order. Drawing texts until one fulfils the policy would give the same, and might take for ever.
 */
function fromClasses(
  classes: readonly CharacterClass[],
  length: number,
  randomBytes: RandomBytes,
): string {
  const textsOf = textCounter(classes);
  const drawn: string[] = [];
  classes.forEach(({ characters }, index) => {
    const { byCount, total } = textsOf(index, length - drawn.length);
    let left = randomBelow(total, randomBytes);
    const count = byCount.findIndex((texts) => (left -= texts) < 0n);
    for (let n = 0; n < count; n++) {
      drawn.push(characters.charAt(Number(randomBelow(BigInt(characters.length), randomBytes))));
    }
  });
  return shuffled(drawn, randomBytes).join('');
}

/** How many texts there are: for each number of characters of a class, and altogether. */
interface Texts {
  byCount: readonly bigint[];
  total: bigint;
}

/** Counts texts of `size` characters, all of the classes from `index` on. */
function textCounter(classes: readonly CharacterClass[]): (index: number, size: number) => Texts {
  const known = new Map<string, Texts>();
  const textsOf = (index: number, size: number): Texts => {
    const key = `${index} ${size}`;
    const before = known.get(key);
    if (before !== undefined) return before;
    const byCount = count(index, size);
    const texts = { byCount, total: byCount.reduce((total, number) => total + number, 0n) };
    known.set(key, texts);
    return texts;
  };
  const count = (index: number, size: number): bigint[] => {
    const { characters, least } = classes[index] ?? { characters: '', least: 0 };
    const choices = BigInt(characters.length);
    if (index === classes.length - 1) {
      return [...Array<bigint>(size).fill(0n), size < least ? 0n : choices ** BigInt(size)];
    }
    // The ways to place them, times those to choose each.
    let texts = 1n;
    return Array.from({ length: size + 1 }, (_, of) => {
      const here = texts;
      texts = ((texts * BigInt(size - of)) / BigInt(of + 1)) * choices;
      return of < least ? 0n : here * textsOf(index + 1, size - of).total;
    });
  };
  return textsOf;
}

/** Fisher and Yates. */
function shuffled(items: readonly string[], randomBytes: RandomBytes): string[] {
  const order = [...items];
  for (let last = order.length - 1; last > 0; last--) {
    const other = Number(randomBelow(BigInt(last + 1), randomBytes));
    [order[last], order[other]] = [order[other] ?? '', order[last] ?? ''];
  }
  return order;
}

/** A number from 0 to below the bound: what is drawn beyond it is thrown away, not folded back. */
function randomBelow(bound: bigint, randomBytes: RandomBytes): bigint {
  if (bound < 1n) throw new Error('no value fulfils the policy');
  const bits = (bound - 1n).toString(2).length;
  const surplus = BigInt((8 - (bits % 8)) % 8);
  for (let round = 0; round < 200; round++) {
    const bytes = randomBytes(Math.ceil(bits / 8));
    const drawn = BigInt(`0x${Buffer.from(bytes).toString('hex')}`) >> surplus;
    if (drawn < bound) return drawn;
  }
  throw new Error('the random source yields no usable bytes');
}

function token(length: number, tier: Tier, randomBytes: RandomBytes): string {
  const mark = length < markedTokenLength ? '' : tokenMarks[tier];
  const bytes = randomBytes(Math.ceil((length * 6) / 8));
  return mark + Buffer.from(bytes).toString('base64url').slice(mark.length, length);
}
