/**
 * The directory `cluster.certificates`: `ca.pem`, `router.pem`, `router-key.pem`, `crl.pem` on every router; on the host of the authority also `ca-key.pem`
 * and `issued.json`. Directory 0700, files 0600. A file is replaced as a whole.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { z } from 'zod';

import { ApplianceError, errorCode } from '../core/errors.ts';
import type { KeyedCertificate } from './authority.ts';
import { ROUTER_ID, type CertificateTexts } from './router-certificate.ts';

const PEM_BYTES_MAX = 4 * 1024 * 1024;

const issuedSchema = z.strictObject({
  version: z.literal(1),
  issued: z.array(
    z.strictObject({
      router: z.string().regex(ROUTER_ID),
      serial: z.string().regex(/^[0-9a-f]{32}$/),
      /** Wall clock. */
      atMs: z.number(),
      /** Who asked, or null: this host. */
      address: z.string().nullable(),
      revokedAtMs: z.number().nullable(),
    }),
  ),
});

/** One certificate that the authority signed. */
export type IssuedCertificate = z.output<typeof issuedSchema>['issued'][number];

export class CertificateFiles {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /** @throws ApplianceError `certificate-missing`, `certificate-unusable` (unreadable, or a key that others may read). */
  read(): CertificateTexts {
    return {
      authority: this.#read('ca.pem'),
      certificate: this.#read('router.pem'),
      key: this.#readSecret('router-key.pem'),
      revocations: existsSync(join(this.directory, 'crl.pem')) ? this.#read('crl.pem') : null,
    };
  }

  /** The key of the authority is here: this host can sign. */
  get hasAuthority(): boolean {
    return existsSync(join(this.directory, 'ca-key.pem'));
  }

  /** `ca.pem`, or null: nobody was here yet. */
  authorityCertificate(): string | null {
    return existsSync(join(this.directory, 'ca.pem')) ? this.#read('ca.pem') : null;
  }

  /** @throws ApplianceError `certificate-missing` on a host that is not the authority's. */
  readAuthority(): KeyedCertificate {
    return { certificate: this.#read('ca.pem'), key: this.#readSecret('ca-key.pem') };
  }

  writeAuthority({ certificate, key }: KeyedCertificate): void {
    this.#write('ca-key.pem', key);
    this.#write('ca.pem', certificate);
  }

  write({ authority, certificate, key, revocations }: CertificateTexts): void {
    this.#write('ca.pem', authority);
    this.#write('router-key.pem', key);
    this.#write('router.pem', certificate);
    if (revocations !== null) this.writeRevocations(revocations);
  }

  writeRevocations(list: string): void {
    this.#write('crl.pem', list);
  }

  /** Oldest first. */
  issued(): readonly IssuedCertificate[] {
    if (!existsSync(join(this.directory, 'issued.json'))) return [];
    const text = this.#read('issued.json');
    try {
      return issuedSchema.parse(JSON.parse(text)).issued;
    } catch (cause) {
      throw new ApplianceError('certificate-unusable', `${join(this.directory, 'issued.json')} is damaged; restore it from a backup`, { cause });
    }
  }

  writeIssued(issued: readonly IssuedCertificate[]): void {
    this.#write('issued.json', `${JSON.stringify({ version: 1, issued }, null, 1)}\n`);
  }

  #read(name: string): string {
    const path = join(this.directory, name);
    try {
      if (statSync(path).size > PEM_BYTES_MAX) throw new Error('it is too large');
      return readFileSync(path, 'utf8');
    } catch (cause) {
      if (errorCode(cause) === 'ENOENT') {
        const what = name === 'ca-key.pem' ? 'the authority of the cluster is on another host' : 'this router has not joined a cluster yet';
        throw new ApplianceError('certificate-missing', `there is no ${path}: ${what} (vferry cluster init, vferry cluster join)`, { cause });
      }
      throw new ApplianceError('certificate-unusable', `${path} cannot be read: ${(cause as Error).message}`, { cause });
    }
  }

  #readSecret(name: string): string {
    const text = this.#read(name);
    const path = join(this.directory, name);
    const mode = statSync(path).mode & 0o777;
    if ((mode & 0o077) !== 0) {
      throw new ApplianceError('certificate-unusable', `${path} has mode 0${mode.toString(8)}, so others may read the key; chmod 600 ${path}`);
    }
    return text;
  }

  #write(name: string, text: string): void {
    const path = join(this.directory, name);
    try {
      mkdirSync(this.directory, { recursive: true, mode: 0o700 });
      writeFileSync(`${path}.tmp`, text, { mode: 0o600, flush: true });
      // The mode of a file that was there already stays.
      chmodSync(`${path}.tmp`, 0o600);
      renameSync(`${path}.tmp`, path);
    } catch (cause) {
      throw new ApplianceError('certificate-unusable', `${path} cannot be written: ${(cause as Error).message}`, { cause });
    }
  }
}
