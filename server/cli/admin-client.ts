/** Asks a running router over its admin port. */
import { type IncomingMessage, request } from 'node:http';

import type { AdminSettings } from '../settings/settings.ts';

const ANSWER_MS_MAX = 5000;
const ANSWER_CHARACTERS_MAX = 8 * 1024 * 1024;

/** Where the router with these settings answers `path`. */
export function adminUrl(admin: AdminSettings, path: string): string {
  const host =
    admin.listen === '0.0.0.0' ? '127.0.0.1' : admin.listen === '::' ? '[::1]' : admin.listen.includes(':') ? `[${admin.listen}]` : admin.listen;
  return `http://${host}:${admin.port}${path}`;
}

/** Body of a 200 answer; rejects with what is wrong. Not fetch: that refuses a list of ports (2049, 6000 ...), whatever listens there. */
export async function getText(url: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  request(url, { signal: AbortSignal.timeout(ANSWER_MS_MAX) }, resolve)
    .once('error', reject)
    .end();
  const response = await promise;
  if (response.statusCode !== 200) throw new Error(`it answers ${response.statusCode}`);
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) {
    text += String(chunk);
    if (text.length > ANSWER_CHARACTERS_MAX) throw new Error('its answer is too long');
  }
  return text;
}

/** What an admin port answered to a call: the JSON of a 200, or why not. */
export type AdminAnswer =
  | { readonly kind: 'ok'; readonly body: unknown }
  /** `status` and what it says; `retryable`: the same may succeed later. */
  | { readonly kind: 'refused'; readonly status: number; readonly code: string; readonly message: string; readonly retryable: boolean }
  | { readonly kind: 'unreachable'; readonly message: string };

/** Calls a running router. `body` undefined: none is sent. Never rejects for what the other side does. */
export async function callAdmin(url: string, method: 'GET' | 'POST' | 'DELETE', body?: object, timeoutMs = ANSWER_MS_MAX): Promise<AdminAnswer> {
  let status: number;
  let text = '';
  try {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    request(url, { method, headers, signal: AbortSignal.timeout(timeoutMs) }, resolve)
      .once('error', reject)
      .end(body === undefined ? undefined : JSON.stringify(body));
    const response = await promise;
    status = response.statusCode ?? 0;
    for await (const chunk of response.setEncoding('utf8')) {
      text += String(chunk);
      if (text.length > ANSWER_CHARACTERS_MAX) throw new Error('its answer is too long');
    }
  } catch (error) {
    return { kind: 'unreachable', message: (error as Error).message };
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return { kind: 'unreachable', message: `it answers ${status} with what is no JSON; is it a vferry?` };
  }
  if (status === 200) return { kind: 'ok', body: json };
  const { code, message, retryable } = (json ?? {}) as { code?: unknown; message?: unknown; retryable?: unknown };
  return {
    kind: 'refused',
    status,
    code: typeof code === 'string' ? code : 'unknown',
    message: typeof message === 'string' ? message : `it answers ${status}`,
    retryable: retryable === true,
  };
}
