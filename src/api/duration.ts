/**
 * Durations as Go writes them: `24h`, `1h30m`, `1.5h`, `100ms`. A subset of what Go's
 * `time.ParseDuration` takes: no sign, no bare `0`, digits on both sides of the point, and so many
 * digits only that no text of at most {@link durationMaxLength} characters overflows Go's int64 of
 * nanoseconds. An overflow would be an expression error of CEL where a sentence is due.
 */

/** RE2 and JavaScript alike; the CRDs and {@link parseDuration} share it. */
export const durationPattern =
  '^([0-9]{1,5}([.][0-9]{1,9})?h|[0-9]{1,7}([.][0-9]{1,9})?m|[0-9]{1,9}([.][0-9]{1,9})?(s|ms|us|µs|μs|ns))+$';

/** Characters. */
export const durationMaxLength = 32;

const whole = new RegExp(durationPattern);

const component = /([0-9]+)(?:[.]([0-9]+))?(h|ms|m|s|us|µs|μs|ns)/g;

const nanoseconds: Record<string, number> = {
  h: 3_600_000_000_000,
  m: 60_000_000_000,
  s: 1_000_000_000,
  ms: 1_000_000,
  us: 1000,
  // U+00B5 and U+03BC, as Go takes both.
  µs: 1000,
  μs: 1000,
  ns: 1,
};

/**
 * Reads a duration, to the nanosecond as Go does. Total.
 *
 * @returns milliseconds, or `undefined` where the text isn't a duration
 */
export function parseDuration(text: string): number | undefined {
  if (text.length > durationMaxLength || !whole.test(text)) return undefined;
  let total = 0n;
  for (const [, digits = '', fraction = '', unit = ''] of text.matchAll(component)) {
    const size = nanoseconds[unit] ?? 0;
    total += BigInt(digits) * BigInt(size);
    // The same float arithmetic as Go's, so that `1.1h` equals `66m` here as it does there.
    total += BigInt(Math.trunc(Number(fraction) * (size / 10 ** fraction.length)));
  }
  return Number(total) / 1e6;
}

/**
 * The shortest form that {@link parseDuration} reads back: `1h30m`, `1.5s`, `250ms`. Parts below a
 * nanosecond are dropped; nothing at all, a negative number and NaN are `0s`.
 */
export function formatDuration(milliseconds: number): string {
  let rest = BigInt(Math.max(0, Math.round((milliseconds || 0) * 1e6)));
  if (rest === 0n) return '0s';
  const take = (unit: string): string => {
    const size = BigInt(nanoseconds[unit] ?? 1);
    const count = rest / size;
    rest %= size;
    return count === 0n ? '' : `${count}${unit}`;
  };
  const clock = take('h') + take('m');
  if (rest === 0n) return clock;
  const unit = ['s', 'ms', 'us'].find((name) => rest >= BigInt(nanoseconds[name] ?? 1)) ?? 'ns';
  const size = nanoseconds[unit] ?? 1;
  const digits = String(size).length - 1;
  const fraction = String(rest % BigInt(size))
    .padStart(digits, '0')
    .replace(/0+$/, '');
  return `${clock}${rest / BigInt(size)}${digits === 0 || fraction === '' ? '' : `.${fraction}`}${unit}`;
}
