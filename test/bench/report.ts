/** Where the figures of a benchmark go. */
export interface Report {
  /** One figure, over `n` measurements. */
  figure(name: string, value: number, unit: string, n: number): void;
  /** What goes on, for whoever waits. */
  progress(line: string): void;
}

/** @param json one JSON line a figure, and nothing else */
export function reportTo(json: boolean): Report {
  return {
    figure(name, value, unit, n) {
      const rounded = Number(value.toPrecision(4));
      console.log(
        json
          ? JSON.stringify({ name, value: rounded, unit, n })
          : `${name.padEnd(72)} ${String(rounded).padStart(9)} ${unit}  (n=${n})`,
      );
    },
    progress(line) {
      if (!json) console.error(line);
    },
  };
}

/** The smallest of the measurements that so many percent of them don't exceed (nearest rank). */
export function percentile(numbers: readonly number[], percent: number): number {
  const rank = Math.max(1, Math.ceil((percent / 100) * numbers.length));
  return numbers.toSorted((a, b) => a - b)[rank - 1] ?? Number.NaN;
}

/** The middle of the measurements; of an even number, the upper one. */
export function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}
