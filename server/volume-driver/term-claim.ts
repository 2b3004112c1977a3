/** The proof on the backend that a term was won: an object that is created if absent, with the term's nonce in it (design section 5, decision 0003). */
import { StoreError } from '../../backends/object-store.ts';
import type { ObjectStore } from '../../backends/object-store.ts';
import { ApplianceError } from '../core/errors.ts';
import type { ObjectUuid, Term } from '../core/ids.ts';
import type { StorageNames } from './storage-names.ts';

/**
 * Puts the claim of `term`, before anything else of it is stored. Idempotent. @throws ApplianceError `fenced` when somebody else claimed that epoch;
 * StoreError as the store does.
 */
export async function putTermClaim(
  components: { store: ObjectStore; names: StorageNames },
  vpoolUuid: string,
  uuid: ObjectUuid,
  term: Term,
): Promise<void> {
  const { store, names } = components;
  const bucket = names.bucket(uuid, '');
  await store.createBucket(bucket);
  const name = `claim-${term.generation}-${term.counter}`;
  const body = Buffer.from(
    `${JSON.stringify({ object: uuid, vpool: vpoolUuid, generation: term.generation, counter: term.counter, nonce: term.nonce })}\n`,
  );
  const outcome = await store.put(bucket, names.object(uuid, '', name), { kind: 'bytes', chunks: [body] });
  if (outcome !== 'exists') return;
  const there = await store.get(bucket, names.object(uuid, '', name));
  if (there.kind === 'absent') throw new StoreError('retry', `claim ${name} of ${uuid} exists but cannot be read yet`);
  if (!there.bytes.equals(body)) {
    throw new ApplianceError('fenced', `epoch ${term.generation}.${term.counter} of object ${uuid} was claimed by another router`);
  }
}
