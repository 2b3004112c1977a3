import { lookup } from 'node:dns/promises';
import { connect, isIP } from 'node:net';

import { StoreError } from './object-store.ts';

/** An address is asked for again after this long: services move. */
const ADDRESS_AGE_MS_MAX = 60_000;

/**
 * Whether something listens where `url` says, by connecting and hanging up: no request is made, so none is charged. Resolves when it does; rejects
 * with class `retry`, also when the signal fires.
 *
 * Name look-ups block a thread of libuv's pool, which the log shares, and may last many seconds: at most one runs at a time, abandoned or not.
 */
export class TcpReachable {
  readonly #host: string;
  readonly #port: number;
  readonly #nowMs: () => number;
  #address: { readonly ip: string; readonly atMs: number } | null = null;
  #lookingUp: Promise<string> | null = null;

  constructor(url: string, nowMs: () => number) {
    const { hostname, port, protocol } = new URL(url);
    this.#host = hostname.replace(/^\[|\]$/g, '');
    this.#port = port === '' ? (protocol === 'http:' ? 80 : 443) : Number(port);
    this.#nowMs = nowMs;
  }

  async check(signal: AbortSignal): Promise<void> {
    const host = await this.#resolved(signal);
    await new Promise<void>((resolve, reject) => {
      const socket = connect({ host, port: this.#port });
      const onAbort = (): void => {
        socket.destroy();
        reject(this.#error('no connection in time', signal.reason));
      };
      signal.addEventListener('abort', onAbort, { once: true });
      socket.once('connect', () => {
        signal.removeEventListener('abort', onAbort);
        socket.destroy();
        resolve();
      });
      socket.on('error', (error) => {
        signal.removeEventListener('abort', onAbort);
        this.#address = null;
        reject(this.#error(error.message, error));
      });
    });
  }

  async #resolved(signal: AbortSignal): Promise<string> {
    if (signal.aborted) throw this.#error('aborted', signal.reason);
    if (isIP(this.#host) !== 0) return this.#host;
    if (this.#address !== null && this.#nowMs() - this.#address.atMs < ADDRESS_AGE_MS_MAX) return this.#address.ip;
    this.#lookingUp ??= lookup(this.#host)
      .then(({ address }) => {
        this.#address = { ip: address, atMs: this.#nowMs() };
        return address;
      })
      .finally(() => {
        this.#lookingUp = null;
      });
    const lookingUp = this.#lookingUp;
    return await new Promise<string>((resolve, reject) => {
      const onAbort = (): void => reject(this.#error('its name was not resolved in time', signal.reason));
      signal.addEventListener('abort', onAbort, { once: true });
      lookingUp.then(resolve, (error: unknown) => reject(this.#error((error as Error).message, error)));
    });
  }

  #error(what: string, cause: unknown): StoreError {
    return new StoreError('retry', `${this.#host}:${this.#port}: ${what}`, cause);
  }
}
