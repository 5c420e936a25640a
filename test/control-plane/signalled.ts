/** Resolves on the first Ctrl-C or SIGTERM; a second one ends the process at once. */
export async function signalled(): Promise<void> {
  const signals = ['SIGINT', 'SIGTERM'] as const;
  await new Promise<void>((resolve) => {
    // Waiting for a signal alone doesn't keep a process alive.
    const keepAlive = setInterval(() => undefined, 60_000);
    const onSignal = (): void => {
      clearInterval(keepAlive);
      for (const signal of signals) process.off(signal, onSignal);
      resolve();
    };
    for (const signal of signals) process.on(signal, onSignal);
  });
}
