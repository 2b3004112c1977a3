/** Universal addresses of TCP and UDP, RFC 5665 §5.2.3.3: host, then the port's two bytes in decimal: `192.0.2.1.8.1`, `2001:db8::1.8.1`. */
import { isIP } from 'node:net';

export function formatUniversalAddress(host: string, port: number): string {
  return `${host}.${port >> 8}.${port & 0xff}`;
}

/** Null when the text is not one. */
export function parseUniversalAddress(text: string): { readonly host: string; readonly port: number } | null {
  const match = /^(.+)\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (match === null) return null;
  const [, host = '', high = '', low = ''] = match;
  if (isIP(host) === 0 || Number(high) > 255 || Number(low) > 255) return null;
  return { host, port: Number(high) * 256 + Number(low) };
}
