import { defineConfig } from 'vitest/config';

/**
 * unit: pure logic and contract tests, beside the code.
 * integration: behaviour on the real control plane; three files at a time: on two cores, one of them waits.
 * exhaustive: every crash point, every path, the other version of Kubernetes; a command of its own
 * (`npm run test:exhaustive`), two files at a time.
 * peers: beside the real Flux and Argo CD, which are built first; `npm run test:peers`.
 */
export default defineConfig({
  test: {
    // Lines of progress as they come, without a frame of vitest's around each.
    disableConsoleIntercept: true,
    projects: [
      {
        test: {
          name: 'unit',
          include: ['src/**/*.test.ts', 'test/fault/**/*.test.ts', 'test/operator/**/*.test.ts'],
          testTimeout: 60_000,
          expect: { poll: { timeout: 30_000 } },
        },
      },
      {
        test: {
          name: 'integration',
          include: ['test/{integration,control-plane,e2e}/**/*.test.ts'],
          maxWorkers: 3,
          testTimeout: 300_000,
          hookTimeout: 300_000,
        },
      },
      {
        test: {
          name: 'exhaustive',
          include: ['test/exhaustive/**/*.test.ts'],
          maxWorkers: 2,
          testTimeout: 3_600_000,
          hookTimeout: 300_000,
        },
      },
      {
        test: {
          name: 'soak',
          include: ['test/soak/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 1_800_000,
          hookTimeout: 300_000,
        },
      },
      {
        test: {
          name: 'peers',
          include: ['test/peers/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 1_800_000,
          hookTimeout: 300_000,
        },
      },
    ],
  },
});
