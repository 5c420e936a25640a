import { connect, createServer, type Socket } from 'node:net';

interface Link {
  readonly client: Socket;
  readonly server: Socket;
}

/**
 * Forwards TCP connections, TLS and all, to one place, and can do to them what networks do: cut
 * them in the middle of a byte stream, or leave them half-open.
 */
export class TcpProxy {
  readonly #target: URL;
  readonly #links = new Set<Link>();
  readonly #listener = createServer((client) => this.#forward(client));
  #connections = 0;
  /** Bytes that still pass on the way back; then everything is cut once. */
  #bytesUntilCut = Infinity;
  #cuts = 0;

  /** @param target URL of a server; its path doesn't matter */
  constructor(target: string) {
    this.#target = new URL(target);
  }

  /** Listens on a free loopback port. */
  async start(): Promise<this> {
    await new Promise<void>((resolve, reject) => {
      this.#listener.once('error', reject);
      this.#listener.listen(0, '127.0.0.1', resolve);
    });
    return this;
  }

  async stop(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#listener.close(resolve));
  }

  /** The target's URL, by way of the proxy. */
  get url(): string {
    const address = this.#listener.address();
    if (address === null || typeof address === 'string') throw new Error('the proxy is not up');
    return `${this.#target.protocol}//127.0.0.1:${address.port}`;
  }

  /** Connections accepted so far. */
  get connections(): number {
    return this.#connections;
  }

  /** How often {@link cutAfter} has struck. */
  get cuts(): number {
    return this.#cuts;
  }

  /** Resets every connection, now. */
  cut(): void {
    for (const { client, server } of this.#links) {
      client.resetAndDestroy();
      server.destroy();
    }
    this.#links.clear();
  }

  /** Resets every connection, once, when that many more bytes have come from the server. */
  cutAfter(bytes: number): void {
    this.#bytesUntilCut = bytes;
  }

  /** Leaves every present connection half-open: it stays, and nothing comes through any more. */
  silence(): void {
    for (const { client, server } of this.#links) {
      client.removeAllListeners('data').resume();
      server.removeAllListeners('data').resume();
    }
  }

  #forward(client: Socket): void {
    this.#connections += 1;
    const server = connect({
      host: this.#target.hostname,
      port: Number(this.#target.port),
      noDelay: true,
    });
    const link = { client, server };
    this.#links.add(link);
    const close = (): void => {
      this.#links.delete(link);
      client.destroy();
      server.destroy();
    };
    for (const socket of [client, server]) socket.on('error', close).on('close', close);
    client.setNoDelay(true);
    client.on('data', (chunk: Buffer) => server.write(chunk));
    server.on('data', (chunk: Buffer) => {
      if (chunk.length < this.#bytesUntilCut) {
        this.#bytesUntilCut -= chunk.length;
        client.write(chunk);
        return;
      }
      const last = chunk.subarray(0, this.#bytesUntilCut);
      this.#bytesUntilCut = Infinity;
      this.#cuts += 1;
      // What was sent before the cut arrives, as it would on a wire.
      client.write(last, () => this.cut());
    });
  }
}
