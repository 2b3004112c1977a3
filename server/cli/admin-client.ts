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
