import { gettingStarted } from '../e2e/getting-started.ts';

// Where no MutatingAdmissionPolicy is served.
gettingStarted('1.35');
