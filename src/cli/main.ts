#!/usr/bin/env node
/** `kubectl guardrails`: engage, release and look, with the user's own kubeconfig and rights. */
import { run } from './run.ts';

process.exitCode = await run({
  argv: process.argv.slice(2),
  stdout: (line) => process.stdout.write(`${line}\n`),
  stderr: (line) => process.stderr.write(`${line}\n`),
});
