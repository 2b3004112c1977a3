/** The clock of an HTTP service, from the Date header of any answer: credentials are not needed for it. */
import { readFileSync } from 'node:fs';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';

import type { Clock } from '../../server/core/time.ts';

/** Milliseconds that the service at `url` is ahead of this machine, to about a second; null when it does not say. @throws Error when it does not answer. */
export async function clockSkewMs(clock: Clock, url: string, caFile: string | null, signal: AbortSignal): Promise<number | null> {
  const secure = url.startsWith('https:');
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const sentMs = clock.wallMs();
  const options = { method: 'HEAD', signal, agent: false as const, ...(secure && caFile !== null ? { ca: readFileSync(caFile) } : {}) };
  (secure ? httpsRequest : httpRequest)(url, options, resolve).once('error', reject).end();
  const response = await promise;
  const receivedMs = clock.wallMs();
  response.destroy();
  // oxlint-disable-next-line no-restricted-globals -- parses text, reads no clock
  const date = Date.parse(response.headers.date ?? '');
  // The header says whole seconds, cut off: on average it is half a second more.
  return Number.isNaN(date) ? null : date + 500 - (sentMs + receivedMs) / 2;
}
