/** The stack as a router has it: encoding over one bucket over a directory, in worker threads that each have their own store. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { silentLogger } from '../../server/core/logger.ts';
import { systemClock } from '../../server/core/node-time.ts';
import { bytes, objectStoreConformance, rejectsWith, withDirectory } from '../conformance.ts';
import { initializeBackendDirectory } from '../directory/backend-marker.ts';
import type { HostedStoreConfig } from '../upload-thread/hosted-store.ts';
import { ThreadedStore } from '../upload-thread/threaded-store.ts';
import type { EncodingConfig } from './encoding-config.ts';
import { compressible, FIRST_KEY, MODES, SECOND_KEY } from './encoding.fixture.ts';

function hosted(path: string, encoding: EncodingConfig, initialize: boolean): HostedStoreConfig {
  const store = { kind: 'directory', path, vpoolUuid: 'c'.repeat(32), initialize: false } as const;
  if (initialize) initializeBackendDirectory(store);
  return { store, layout: { kind: 'prefix', bucket: 'the-bucket' }, encoding };
}

async function withThreads(
  path: string,
  encoding: EncodingConfig,
  initialize: boolean,
  body: (store: ThreadedStore) => Promise<void>,
): Promise<void> {
  const store = new ThreadedStore({ clock: systemClock, logger: silentLogger }, { store: hosted(path, encoding, initialize) });
  try {
    await body(store);
  } finally {
    await store.close();
  }
}

{
  // One store for all: starting its threads is the dearest part.
  let opened: Promise<{ store: ThreadedStore; path: string }> | null = null;
  const open = async (): Promise<{ store: ThreadedStore; path: string }> => {
    const path = await mkdtemp(join(tmpdir(), 'vferry-encoded-'));
    return { store: new ThreadedStore({ clock: systemClock, logger: silentLogger }, { store: hosted(path, MODES.both, true) }), path };
  };
  after(async () => {
    if (opened === null) return;
    const { store, path } = await opened;
    await store.close();
    await rm(path, { recursive: true });
  });
  objectStoreConformance(
    'ThreadedStore over encoding over one bucket over a directory',
    async () => {
      opened ??= open();
      return { store: (await opened).store, close: () => Promise.resolve() };
    },
    { bucketsAreReal: false },
  );
}

test('a restart with a rotated key reads what was, and one without the key says which is missing', async () => {
  await withDirectory(async (directory) => {
    const path = join(directory, 'backend');
    const content = compressible(300_000);
    await withThreads(path, MODES.both, true, async (store) => {
      await store.createBucket('vf-pool-1');
      await store.put('vf-pool-1', 'before', bytes(content));
    });
    await withThreads(path, { compression: 'none', encryptWith: SECOND_KEY.id, keys: [SECOND_KEY, FIRST_KEY] }, false, async (store) => {
      await store.put('vf-pool-1', 'after', bytes(content));
      for (const name of ['before', 'after']) {
        const outcome = await store.get('vf-pool-1', name, { offsetBytes: 250_000, lengthBytes: 100_000 });
        assert.ok(outcome.kind === 'found' && outcome.bytes.equals(content.subarray(250_000)), name);
      }
    });
    await withThreads(path, { compression: 'none', encryptWith: SECOND_KEY.id, keys: [SECOND_KEY] }, false, async (store) => {
      const { message } = await rejectsWith(store.get('vf-pool-1', 'before'), 'denied');
      assert.match(message, new RegExp(FIRST_KEY.id));
    });
  });
});
