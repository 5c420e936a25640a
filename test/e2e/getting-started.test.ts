import { choices } from './cluster.ts';
import { gettingStarted } from './getting-started.ts';

const asked = process.env['E2E_CLUSTER'] ?? '1.36';
const choice = choices.find((known) => known === asked);
if (choice === undefined) throw new Error(`E2E_CLUSTER is one of ${choices.join(', ')}`);
gettingStarted(choice);
