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
  if (!text.includes('-----BEGIN CERTIFICATE-----')) throw new StoreError('denied', `the CA file ${path} holds no certificate in PEM form`);
  return text;
}
