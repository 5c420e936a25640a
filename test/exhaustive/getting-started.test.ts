/** docs/getting-started.md once more, where no MutatingAdmissionPolicy is served. */
process.env['E2E_CLUSTER'] = '1.35';
await import('../e2e/getting-started.test.ts');

export {};
