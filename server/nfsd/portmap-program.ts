/**
 * The port mapper (program 100000): version 2 as in RFC 1833 §3 (ESXi asks GETPORT over TCP), versions 3 and 4 as in §2 (rpcbind; IPv6
 * clients ask GETADDR). SET and UNSET are for this host only. Indirect calls (CALLIT, BCAST, INDIRECT) are not: they amplify and lend
 * our address to strangers.
 */
import { isIP } from 'node:net';

import type { Clock } from '../core/time.ts';
import type { DispatchRefusal, RpcCall, RpcProgram } from '../oncrpc/rpc-program.ts';
import type { XdrReader } from '../oncrpc/xdr-reader.ts';
import type { XdrWriter } from '../oncrpc/xdr-writer.ts';
import { plainAddress } from './export-rules.ts';
import type { NetId, PortMapping } from './port-registry.ts';
import type { PortTable } from './port-table.ts';
import { formatUniversalAddress, parseUniversalAddress } from './universal-address.ts';

export const PORTMAP_PROGRAM = 100_000;
export const PORTMAP_PORT = 111;

/** IPPROTO_TCP and IPPROTO_UDP. */
export const IPPROTO_TCP = 6;
export const IPPROTO_UDP = 17;

/** Procedures of version 2, RFC 1833 §3.1. */
export const PortmapProcedure = { NULL: 0, SET: 1, UNSET: 2, GETPORT: 3, DUMP: 4, CALLIT: 5 } as const;
/** Procedures of versions 3 and 4, §2.1. */
export const RpcbindProcedure = { NULL: 0, SET: 1, UNSET: 2, GETADDR: 3, DUMP: 4, GETTIME: 6, GETVERSADDR: 9 } as const;

const NAMES_V2 = ['null', 'set', 'unset', 'getport', 'dump', 'callit'];
const NAMES_V3 = [
  'null',
  'set',
  'unset',
  'getaddr',
  'dump',
  'bcast',
  'gettime',
  'uaddr2taddr',
  'taddr2uaddr',
  'getversaddr',
  'indirect',
  'getaddrlist',
  'getstat',
];

/** Longest netid, address and owner that are read. */
const STRING_BYTES_MAX = 255;

export interface PortmapComponents {
  readonly table: PortTable;
  readonly clock: Clock;
}

export interface PortmapSettings {
  /** What GETADDR tells as the host when the caller does not say how it reaches us: the address listened on. */
  readonly advertisedAddress: string;
  /** Same for tcp6 and udp6. */
  readonly advertisedAddress6: string;
}

export class PortmapProgram implements RpcProgram {
  readonly program = PORTMAP_PROGRAM;
  readonly versionFirst = 2;
  readonly versionLast = 4;
  readonly name = 'portmap';
  readonly #table: PortTable;
  readonly #clock: Clock;
  readonly #settings: PortmapSettings;

  constructor(components: PortmapComponents, settings: PortmapSettings) {
    this.#table = components.table;
    this.#clock = components.clock;
    this.#settings = settings;
  }

  procedureName(version: number, procedure: number): string {
    return (version === 2 ? NAMES_V2 : NAMES_V3)[procedure] ?? 'unknown';
  }

  /** SET and UNSET repeat harmlessly enough: the state is the same, only the truth of the second answer differs. */
  isCached(): boolean {
    return false;
  }

  dispatch(call: RpcCall): DispatchRefusal {
    if (call.procedure === 0) {
      call.args.assertEnd();
      call.finish(call.beginReply(0));
      return null;
    }
    return call.version === 2 ? this.#dispatch2(call) : this.#dispatch34(call);
  }

  #dispatch2(call: RpcCall): DispatchRefusal {
    switch (call.procedure) {
      case PortmapProcedure.SET: {
        const mapping = decodeMapping(call.args);
        const netid = netidOf(mapping.protocol);
        return replyBool(call, netid !== null && this.#set(call, { program: mapping.program, version: mapping.version, netid, port: mapping.port }));
      }
      case PortmapProcedure.UNSET: {
        // §3.1: protocol and port are ignored.
        const mapping = decodeMapping(call.args);
        return replyBool(call, isLoopback(call.clientAddress) && this.#table.unset(mapping.program, mapping.version, null));
      }
      case PortmapProcedure.GETPORT: {
        const mapping = decodeMapping(call.args);
        const netid = netidOf(mapping.protocol);
        const found = netid === null ? null : this.#table.findAny(mapping.program, mapping.version, netid);
        const writer = call.beginReply(4);
        writer.uint32(found?.port ?? 0);
        call.finish(writer);
        return null;
      }
      case PortmapProcedure.DUMP: {
        call.args.assertEnd();
        const mappings = this.#table.list().filter((m) => m.netid === 'tcp' || m.netid === 'udp');
        const writer = call.beginReply(mappings.length * 20 + 4);
        for (const m of mappings) {
          writer.bool(true);
          encodeMapping(writer, { program: m.program, version: m.version, protocol: m.netid === 'tcp' ? IPPROTO_TCP : IPPROTO_UDP, port: m.port });
        }
        writer.bool(false);
        call.finish(writer);
        return null;
      }
      default:
        return 'procedure-unavailable';
    }
  }

  #dispatch34(call: RpcCall): DispatchRefusal {
    switch (call.procedure) {
      case RpcbindProcedure.SET: {
        const binding = decodeBinding(call.args);
        const address = parseUniversalAddress(binding.address);
        const netid = asNetId(binding.netid);
        if (netid === null || address === null) return replyBool(call, false);
        return replyBool(call, this.#set(call, { program: binding.program, version: binding.version, netid, port: address.port }));
      }
      case RpcbindProcedure.UNSET: {
        // §2.1: an empty netid means all of them.
        const binding = decodeBinding(call.args);
        const netid = asNetId(binding.netid);
        if (netid === null && binding.netid !== '') return replyBool(call, false);
        return replyBool(call, isLoopback(call.clientAddress) && this.#table.unset(binding.program, binding.version, netid));
      }
      case RpcbindProcedure.GETADDR:
        return this.#getaddr(call, false);
      case RpcbindProcedure.DUMP:
        return this.#dump34(call);
      case RpcbindProcedure.GETTIME: {
        call.args.assertEnd();
        const writer = call.beginReply(4);
        writer.uint32(Math.floor(this.#clock.wallMs() / 1000));
        call.finish(writer);
        return null;
      }
      case RpcbindProcedure.GETVERSADDR:
        // Version 4 only, and of exactly the version asked for.
        return call.version === 4 ? this.#getaddr(call, true) : 'procedure-unavailable';
      default:
        return 'procedure-unavailable';
    }
  }

  #getaddr(call: RpcCall, exactVersion: boolean): null {
    const binding = decodeBinding(call.args);
    const netid = asNetId(binding.netid);
    let found: PortMapping | null = null;
    if (netid !== null) {
      found = exactVersion ? this.#table.find(binding.program, binding.version, netid) : this.#table.findAny(binding.program, binding.version, netid);
    }
    const text = found === null ? '' : formatUniversalAddress(this.#hostFor(found.netid, binding.address), found.port);
    const writer = call.beginReply(8 + text.length);
    writer.string(text);
    call.finish(writer);
    return null;
  }

  /** The address by which the caller reaches us, when it says so and it is one of the right family; else the one we listen on. */
  #hostFor(netid: NetId, hint: string): string {
    const family = netid.endsWith('6') ? 6 : 4;
    const hinted = parseUniversalAddress(hint);
    if (hinted !== null && isIP(hinted.host) === family && hinted.host !== '0.0.0.0' && hinted.host !== '::') return hinted.host;
    return family === 6 ? this.#settings.advertisedAddress6 : this.#settings.advertisedAddress;
  }

  #dump34(call: RpcCall): null {
    call.args.assertEnd();
    const rows = this.#table.list().map((m) => ({ mapping: m, address: formatUniversalAddress(this.#hostFor(m.netid, ''), m.port) }));
    let bytes = 4;
    for (const row of rows) bytes += 4 + 8 + 8 + 8 + row.address.length + 4 + 16;
    const writer = call.beginReply(bytes);
    for (const { mapping, address } of rows) {
      writer.bool(true);
      encodeBinding(writer, { program: mapping.program, version: mapping.version, netid: mapping.netid, address, owner: 'superuser' });
    }
    writer.bool(false);
    call.finish(writer);
    return null;
  }

  #set(call: RpcCall, mapping: PortMapping): boolean {
    return isLoopback(call.clientAddress) && mapping.port > 0 && mapping.port < 65_536 && this.#table.set(mapping);
  }
}

/** struct mapping { unsigned int prog, vers, prot, port; }, RFC 1833 §3. */
export interface WireMapping {
  readonly program: number;
  readonly version: number;
  readonly protocol: number;
  readonly port: number;
}

export function decodeMapping(reader: XdrReader): WireMapping {
  const mapping = { program: reader.uint32(), version: reader.uint32(), protocol: reader.uint32(), port: reader.uint32() };
  reader.assertEnd();
  return mapping;
}

export function encodeMapping(writer: XdrWriter, mapping: WireMapping): void {
  writer.uint32(mapping.program);
  writer.uint32(mapping.version);
  writer.uint32(mapping.protocol);
  writer.uint32(mapping.port);
}

/** struct rpcb { unsigned long r_prog, r_vers; string r_netid<>, r_addr<>, r_owner<>; }, RFC 1833 §2. */
export interface WireBinding {
  readonly program: number;
  readonly version: number;
  readonly netid: string;
  readonly address: string;
  readonly owner: string;
}

export function decodeBinding(reader: XdrReader): WireBinding {
  const binding = {
    program: reader.uint32(),
    version: reader.uint32(),
    netid: reader.string(STRING_BYTES_MAX),
    address: reader.string(STRING_BYTES_MAX),
    owner: reader.string(STRING_BYTES_MAX),
  };
  reader.assertEnd();
  return binding;
}

export function encodeBinding(writer: XdrWriter, binding: WireBinding): void {
  writer.uint32(binding.program);
  writer.uint32(binding.version);
  writer.string(binding.netid);
  writer.string(binding.address);
  writer.string(binding.owner);
}

function netidOf(protocol: number): NetId | null {
  return protocol === IPPROTO_TCP ? 'tcp' : protocol === IPPROTO_UDP ? 'udp' : null;
}

function asNetId(text: string): NetId | null {
  return text === 'tcp' || text === 'udp' || text === 'tcp6' || text === 'udp6' ? text : null;
}

/** 127.0.0.0/8, also mapped into IPv6, and ::1. */
export function isLoopback(address: string): boolean {
  const plain = plainAddress(address);
  return plain === '::1' || (isIP(plain) === 4 && plain.startsWith('127.'));
}

function replyBool(call: RpcCall, value: boolean): null {
  const writer = call.beginReply(4);
  writer.bool(value);
  call.finish(writer);
  return null;
}
