import { html } from './markup.ts';

/** How a report looks: on a desktop, a phone and paper; light and dark. */
export const style = html`<style>
  :root {
    color-scheme: light dark;
    --ink: light-dark(#1c2430, #e8ecf2);
    --soft: light-dark(#56616f, #a3aebb);
    --line: light-dark(#d9dee5, #3a434f);
    --card: light-dark(#f6f8fa, #1e252e);
    --page: light-dark(#fff, #151a20);
    --good: light-dark(#17713f, #5bc98b);
    --bad: light-dark(#b3261e, #ff8a80);
    --warn: light-dark(#8a5300, #f0b35a);
    --note: light-dark(#2457a6, #8ab4f8);
  }
  * {
    box-sizing: border-box;
  }
  body {
    background: var(--page);
    color: var(--ink);
    font:
      16px/1.5 system-ui,
      sans-serif;
    margin: 0 auto;
    max-width: 68rem;
    padding: 1.5rem 1.25rem 3rem;
    overflow-wrap: anywhere;
  }
  h1 {
    font-size: 1.75rem;
    line-height: 1.2;
    margin: 0 0 0.25rem;
  }
  h2 {
    border-bottom: 1px solid var(--line);
    font-size: 1.2rem;
    margin: 2.5rem 0 0.75rem;
    padding-bottom: 0.35rem;
  }
  h3 {
    font-size: 1rem;
    margin: 1.5rem 0 0.5rem;
  }
  p {
    margin: 0.35rem 0;
  }
  .soft {
    color: var(--soft);
  }
  small,
  code,
  .soft {
    font-size: 0.875rem;
  }
  code {
    font-family: ui-monospace, monospace;
  }
  .proof {
    background: var(--card);
    border: 1px solid var(--line);
    border-left: 0.4rem solid var(--good);
    border-radius: 0.4rem;
    margin: 1.25rem 0;
    padding: 0.8rem 1rem;
  }
  .proof strong {
    color: var(--good);
    font-size: 1.05rem;
  }
  .proof.bad {
    border-left-color: var(--bad);
  }
  .proof.bad strong {
    color: var(--bad);
  }
  .proof ul {
    margin: 0.4rem 0 0;
    padding-left: 1.2rem;
  }
  .figures {
    display: grid;
    gap: 0.6rem;
    grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr));
    list-style: none;
    margin: 1rem 0;
    padding: 0;
  }
  .figures li {
    background: var(--card);
    border: 1px solid var(--line);
    border-radius: 0.4rem;
    padding: 0.6rem 0.8rem;
  }
  .figures b {
    display: block;
    font-size: 1.6rem;
    font-variant-numeric: tabular-nums;
    line-height: 1.2;
  }
  .figures .bad b {
    color: var(--bad);
  }
  dl {
    display: grid;
    gap: 0.2rem 1rem;
    grid-template-columns: max-content minmax(0, 1fr);
    margin: 0.5rem 0;
  }
  dt {
    color: var(--soft);
  }
  dd {
    margin: 0;
  }
  table {
    border-collapse: collapse;
    width: 100%;
  }
  th,
  td {
    border-bottom: 1px solid var(--line);
    padding: 0.45rem 0.75rem 0.45rem 0;
    text-align: left;
    vertical-align: top;
  }
  th {
    color: var(--soft);
    font-size: 0.875rem;
    font-weight: 600;
  }
  td:first-child {
    min-width: 9.5rem;
  }
  .badge {
    border: 1px solid currentColor;
    border-radius: 1rem;
    color: var(--soft);
    display: inline-block;
    font-size: 0.8125rem;
    line-height: 1.3;
    padding: 0 0.5rem;
    white-space: nowrap;
  }
  .badge.authenticated {
    color: var(--good);
  }
  .badge.asserted,
  .badge.unknown {
    color: var(--warn);
  }
  .kill {
    background: var(--card);
    border: 1px solid var(--line);
    border-left: 0.4rem solid var(--bad);
    border-radius: 0.4rem;
    margin: 0.75rem 0;
    padding: 0.8rem 1rem;
  }
  .kill h3 {
    margin: 0 0 0.25rem;
  }
  .events {
    list-style: none;
    margin: 0;
    padding: 0;
  }
  .events > li {
    border-left: 2px solid var(--line);
    display: grid;
    gap: 0 1rem;
    grid-template-columns: 4.75rem minmax(0, 1fr);
    margin-left: 0.35rem;
    padding: 0.35rem 0 0.35rem 1.1rem;
    position: relative;
  }
  .events > li::before {
    background: var(--soft);
    border: 2px solid var(--page);
    border-radius: 50%;
    content: '';
    height: 0.8rem;
    left: -0.47rem;
    position: absolute;
    top: 0.75rem;
    width: 0.8rem;
  }
  .kill .events > li::before {
    border-color: var(--card);
  }
  .events > li.Kill::before,
  .events > li.Failed::before {
    background: var(--bad);
  }
  .events > li.Finding::before {
    background: var(--warn);
  }
  .events > li.Decision::before,
  .events > li.Run::before {
    background: var(--good);
  }
  .events > li.Change::before,
  .events > li.Rights::before {
    background: var(--note);
  }
  .events time {
    color: var(--soft);
    font-variant-numeric: tabular-nums;
  }
  .events p {
    margin: 0.1rem 0;
  }
  .events li.Failed b {
    color: var(--bad);
  }
  details summary {
    color: var(--soft);
    cursor: pointer;
    font-size: 0.875rem;
  }
  details dl {
    background: var(--card);
    border-radius: 0.4rem;
    font-size: 0.875rem;
    padding: 0.5rem 0.75rem;
  }
  footer {
    border-top: 1px solid var(--line);
    color: var(--soft);
    font-size: 0.875rem;
    margin-top: 3rem;
    padding-top: 0.75rem;
  }
  @media (max-width: 45rem) {
    body {
      padding: 1rem 0.85rem 2rem;
    }
    h1 {
      font-size: 1.4rem;
    }
    dl {
      gap: 0;
      grid-template-columns: minmax(0, 1fr);
    }
    dd {
      margin-bottom: 0.4rem;
    }
    thead {
      display: none;
    }
    tr {
      border-bottom: 1px solid var(--line);
      display: block;
      padding: 0.4rem 0;
    }
    td {
      border: 0;
      display: block;
      padding: 0.1rem 0;
    }
    td::before {
      color: var(--soft);
      content: attr(data-of) ': ';
      font-size: 0.875rem;
    }
    .events > li {
      grid-template-columns: minmax(0, 1fr);
    }
  }
  @media print {
    body {
      max-width: none;
    }
    .events > li,
    .kill,
    tr {
      break-inside: avoid;
    }
  }
</style>`;
