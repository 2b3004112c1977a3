/** The ports of registry/ports.ts over a simulated registry: every verb is a request that somebody carries there and back. */
import { EXCLUSIVE_VERIFIER_BYTES, NAME_BYTES_MAX, SYMLINK_BYTES_MAX } from '../../../registry/inode-record.ts';
import { inlineVerifier } from '../../../registry/inode.ts';
import type { Outcomes, Verb } from '../../../registry/outcome-codec.ts';
import { OBJECT_VERIFIER_BYTES } from '../../../registry/owner-record.ts';
import type { Membership, Mutation, Namespace, NewInode, Outbox, Ownership } from '../../../registry/ports.ts';
import { HEX_32 } from '../../../registry/record-check.ts';
import type { VerbArguments, VerbRequest } from '../../../registry/sqlite/worker-protocol.ts';
import { assert } from '../../../server/core/assert.ts';
import type { RouterId } from '../../../server/core/ids.ts';
import type { Random } from '../../../server/core/time.ts';
import { drawnInode, type RegistryServer } from './registry-server.ts';

/** How requests get to the registry and answers back. */
export interface RegistryTransport {
  change<V extends Verb>(request: VerbRequest<V>): Promise<Outcomes[V]>;
  read<T>(work: () => T): Promise<T>;
}

export interface RegistryPorts {
  readonly namespace: Namespace;
  readonly ownership: Ownership;
  readonly membership: Membership;
  readonly outbox: Outbox;
}

/** The ports, for one caller. Arguments are checked as the other registries check them. */
export function registryPorts(server: RegistryServer, transport: RegistryTransport, random: Random): RegistryPorts {
  let requests = 0;
  const change = async <V extends Verb>(verb: V, mutation: Mutation | null, ...args: VerbArguments[V]): Promise<Outcomes[V]> => {
    requests += 1;
    return transport.change({ kind: 'verb', id: requests, verb, mutation: mutation === null ? null : checkedMutation(mutation), arguments: args });
  };
  return {
    namespace: {
      root: server.root,
      inlineBytesMax: server.inlineBytesMax,
      inode: (fileid, generation) => transport.read(() => server.inode(fileid, generation)),
      lookup: async (directory, name) => {
        const kept = checkedName(name);
        return transport.read(() => server.lookup(directory, kept));
      },
      entries: (directory, afterCookie, limit) => transport.read(() => server.entries(directory, afterCookie, limit)),
      createFile: async (mutation, directory, name, file) =>
        change('createFile', mutation, directory, checkedName(name), checkedFile(file), drawnInode(random)),
      createDirectory: async (mutation, directory, name, attributes) =>
        change('createDirectory', mutation, directory, checkedName(name), { ...attributes }, drawnInode(random)),
      createSymlink: async (mutation, directory, name, target, attributes) => {
        assert(target.byteLength <= SYMLINK_BYTES_MAX, 'a symlink has a bound');
        return change('createSymlink', mutation, directory, checkedName(name), new Uint8Array(target), { ...attributes }, drawnInode(random));
      },
      remove: async (mutation, directory, name) => change('remove', mutation, directory, checkedName(name)),
      removeDirectory: async (mutation, directory, name) => change('removeDirectory', mutation, directory, checkedName(name)),
      rename: async (mutation, from, fromName, to, toName) => change('rename', mutation, from, checkedName(fromName), to, checkedName(toName)),
      link: async (mutation, object, directory, name) => change('link', mutation, object, directory, checkedName(name)),
      setAttributes: async (mutation, fileid, changes, guardCtime, expectClass) =>
        change('setAttributes', mutation, fileid, { ...changes }, guardCtime, expectClass),
      writeInline: async (mutation, fileid, offsetBytes, bytes) => {
        assert(Number.isSafeInteger(offsetBytes + bytes.byteLength), 'an offset is a count of bytes');
        const sent = bytes.byteLength > server.inlineBytesMax ? new Uint8Array(server.inlineBytesMax + 1) : new Uint8Array(bytes);
        return change('writeInline', mutation, fileid, offsetBytes, sent);
      },
      flipToFile: async (mutation, fileid) => change('flipToFile', mutation, fileid),
      dropInlineBase: async (mutation, fileid, term) => {
        await change('dropInlineBase', mutation, fileid, term);
      },
      putOwnedAttributes: async (mutation, batch) => {
        if (batch.length > 0) await change('putOwnedAttributes', mutation, [...batch]);
      },
      usage: () => transport.read(() => server.usage()),
      tombstones: (after, limit) => transport.read(() => server.tombstones(after, limit)),
      dropTombstone: async (mutation, fileid) => {
        await change('dropTombstone', mutation, fileid);
      },
    },
    ownership: {
      owner: (fileid) => transport.read(() => server.owner(fileid)),
      ownedBy: (router, after, limit) => transport.read(() => server.ownedBy(router, after, limit)),
      claim: async (mutation, fileid, router, expected, closing, nonce, counterMin = 0) => {
        const inode = server.inode(fileid, null);
        const verifier = new Uint8Array(inode?.class === 'file' ? inlineVerifier(inode) : random.bytes(OBJECT_VERIFIER_BYTES));
        return change('claim', mutation, fileid, router, expected, closing, nonce, counterMin, verifier);
      },
      beginMove: async (mutation, fileid, term, to, nonce) => change('beginMove', mutation, fileid, term, to, nonce),
      transfer: async (mutation, fileid, term, attempt, closing, protection) =>
        change('transfer', mutation, fileid, term, attempt, closing, protection),
      update: async (mutation, fileid, term, fields) =>
        change(
          'update',
          mutation,
          fileid,
          term,
          fields.verifier === undefined ? { ...fields } : { ...fields, verifier: new Uint8Array(fields.verifier) },
        ),
    },
    membership: {
      join: async (router, incarnation, addresses, version) => {
        assert(HEX_32.test(router) && HEX_32.test(incarnation), 'router ids and incarnations are 32 hex digits');
        return change('join', null, router, incarnation, [...addresses], version);
      },
      renew: async (router, incarnation) => change('renew', null, router, incarnation),
      routers: () => transport.read(() => server.routers()),
      markDead: async (router, incarnation, leaseCounterSeen) => change('markDead', null, router, incarnation, leaseCounterSeen),
      leave: async (router: RouterId, incarnation) => {
        await change('leave', null, router, incarnation);
      },
    },
    outbox: {
      pending: (after, limit) => transport.read(() => server.pending(after, limit)),
      release: async (sequence) => {
        await change('release', null, sequence);
      },
      position: () => transport.read(() => server.position()),
    },
  };
}

function checkedMutation(mutation: Mutation): Mutation {
  const { operationId, incarnation, now, notAfterMs } = mutation;
  assert(operationId === null || (operationId.length > 0 && operationId.length <= 1024), 'an operation id has 1 to 1024 characters');
  return { operationId, incarnation, now, notAfterMs };
}

function checkedName(name: Uint8Array): Uint8Array {
  assert(name.byteLength > 0 && name.byteLength <= NAME_BYTES_MAX, 'a name has a bound');
  for (const byte of name) assert(byte !== 0 && byte !== 0x2f, 'a name has no NUL and no slash');
  assert(name[0] !== 0x2e || (name.byteLength !== 1 && (name.byteLength !== 2 || name[1] !== 0x2e)), '"." and ".." are not names');
  return new Uint8Array(name);
}

function checkedFile(file: NewInode): NewInode {
  const { exclusiveVerifier } = file;
  assert(exclusiveVerifier === null || exclusiveVerifier.byteLength === EXCLUSIVE_VERIFIER_BYTES, 'an EXCLUSIVE verifier has 8 bytes');
  return { ...file, exclusiveVerifier: exclusiveVerifier === null ? null : new Uint8Array(exclusiveVerifier) };
}
