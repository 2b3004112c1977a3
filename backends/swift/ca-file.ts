import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { StoreError } from '../object-store.ts';

/** Text of a PEM file with the CAs to trust. @throws StoreError `denied` when it cannot be read or holds no certificate. */
export function readCaFile(path: string): string {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new StoreError('denied', `cannot read the CA file ${path}: ${error instanceof Error ? error.message : String(error)}`, error);
  }
  try {
    // TLS would ignore what it cannot read, and then trust nobody.
    void new X509Certificate(text);
  } catch (error) {
    throw new StoreError('denied', `the CA file ${path} holds no certificate in PEM form: ${error instanceof Error ? error.message : String(error)}`);
  }
  return text;
}
