import assert from 'node:assert/strict';
import { test } from 'node:test';

import { systemClock } from '../core/node-time.ts';
import { XdrReader } from '../oncrpc/xdr-reader.ts';
import type { XdrWriter } from '../oncrpc/xdr-writer.ts';
import { encodeArgs, FakeCall } from './fake-call.ts';
import { PortTable } from './port-table.ts';
import { encodeBinding, encodeMapping, isLoopback, PORTMAP_PROGRAM, PortmapProcedure, PortmapProgram, RpcbindProcedure } from './portmap-program.ts';
import { formatUniversalAddress, parseUniversalAddress } from './universal-address.ts';

function subject(): {
  table: PortTable;
  ask: (version: number, procedure: number, encode: (w: XdrWriter) => void, from?: string) => XdrReader | string | null;
} {
  const table = new PortTable();
  const program = new PortmapProgram(
    { table, clock: { ...systemClock, wallMs: () => 1_700_000_000_500 } },
    { advertisedAddress: '10.1.1.1', advertisedAddress6: 'fd00::1' },
  );
  return {
    table,
    ask(version, procedure, encode, from = '127.0.0.1') {
      const call = new FakeCall({ program: PORTMAP_PROGRAM, version, procedure, args: [encodeArgs(encode)], clientAddress: from });
      const refusal = program.dispatch(call);
      if (refusal !== null) return refusal;
      return new XdrReader([call.reply!]);
    },
  };
}

const mapping = (program: number, version: number, protocol: number, port: number) => (w: XdrWriter) =>
  encodeMapping(w, { program, version, protocol, port });
const binding =
  (program: number, version: number, netid: string, address = '') =>
  (w: XdrWriter): void =>
    encodeBinding(w, { program, version, netid, address, owner: 'me' });
const nothing = (): void => undefined;

function truth(answer: XdrReader | string | null): boolean {
  assert.ok(answer instanceof XdrReader);
  const value = answer.bool();
  answer.assertEnd();
  return value;
}

function number(answer: XdrReader | string | null): number {
  assert.ok(answer instanceof XdrReader);
  return answer.uint32();
}

function text(answer: XdrReader | string | null): string {
  assert.ok(answer instanceof XdrReader);
  const value = answer.string(255);
  answer.assertEnd();
  return value;
}

test('version 2: SET and UNSET from this host change what GETPORT and DUMP tell', () => {
  const { ask } = subject();
  assert.equal(truth(ask(2, PortmapProcedure.SET, mapping(100_003, 3, 6, 2049))), true);
  assert.equal(truth(ask(2, PortmapProcedure.SET, mapping(100_003, 3, 6, 2049))), true, 'the same again');
  assert.equal(truth(ask(2, PortmapProcedure.SET, mapping(100_003, 3, 6, 2050))), false, 'taken');
  assert.equal(truth(ask(2, PortmapProcedure.SET, mapping(100_003, 3, 17, 2049))), true);
  assert.equal(truth(ask(2, PortmapProcedure.SET, mapping(100_003, 3, 99, 2049))), false, 'no such protocol');
  assert.equal(truth(ask(2, PortmapProcedure.SET, mapping(100_003, 3, 6, 0))), false);
  assert.equal(number(ask(2, PortmapProcedure.GETPORT, mapping(100_003, 3, 6, 0))), 2049);
  assert.equal(number(ask(2, PortmapProcedure.GETPORT, mapping(100_003, 4, 6, 0))), 2049, 'another version: the program will say PROG_MISMATCH');
  assert.equal(number(ask(2, PortmapProcedure.GETPORT, mapping(100_021, 4, 6, 0))), 0);
  assert.equal(number(ask(2, PortmapProcedure.GETPORT, mapping(100_003, 3, 99, 0))), 0);
  const dump = ask(2, PortmapProcedure.DUMP, nothing);
  assert.ok(dump instanceof XdrReader);
  const rows: number[][] = [];
  while (dump.bool()) rows.push([dump.uint32(), dump.uint32(), dump.uint32(), dump.uint32()]);
  dump.assertEnd();
  assert.deepEqual(rows, [
    [100_003, 3, 6, 2049],
    [100_003, 3, 17, 2049],
  ]);
  assert.equal(truth(ask(2, PortmapProcedure.UNSET, mapping(100_003, 3, 6, 0))), true);
  assert.equal(truth(ask(2, PortmapProcedure.UNSET, mapping(100_003, 3, 6, 0))), false);
  assert.equal(number(ask(2, PortmapProcedure.GETPORT, mapping(100_003, 3, 17, 0))), 0, 'UNSET takes all protocols');
});

test('SET and UNSET from anywhere but this host do nothing', () => {
  const { ask, table } = subject();
  table.set({ program: 1, version: 1, netid: 'tcp', port: 5 });
  for (const from of ['10.0.0.1', 'fe80::1', '::ffff:10.0.0.1', '128.0.0.1']) {
    assert.equal(truth(ask(2, PortmapProcedure.SET, mapping(2, 1, 6, 7), from)), false);
    assert.equal(truth(ask(4, RpcbindProcedure.SET, binding(2, 1, 'tcp', '0.0.0.0.0.7'), from)), false);
    assert.equal(truth(ask(2, PortmapProcedure.UNSET, mapping(1, 1, 6, 5), from)), false);
    assert.equal(truth(ask(3, RpcbindProcedure.UNSET, binding(1, 1, ''), from)), false);
  }
  assert.deepEqual(table.list(), [{ program: 1, version: 1, netid: 'tcp', port: 5 }]);
  for (const address of ['127.0.0.1', '127.255.0.9', '::1', '::ffff:127.0.0.1']) assert.ok(isLoopback(address));
});

test('versions 3 and 4: GETADDR gives universal addresses in the family of the netid, empty for what is unknown', () => {
  const { ask } = subject();
  for (const netid of ['tcp', 'udp', 'tcp6', 'udp6']) {
    const any = netid.endsWith('6') ? '::.8.1' : '0.0.0.0.8.1';
    assert.equal(truth(ask(4, RpcbindProcedure.SET, binding(100_003, 3, netid, any))), true);
  }
  for (const version of [3, 4]) {
    assert.equal(text(ask(version, RpcbindProcedure.GETADDR, binding(100_003, 3, 'tcp'))), '10.1.1.1.8.1');
    assert.equal(text(ask(version, RpcbindProcedure.GETADDR, binding(100_003, 3, 'udp6'))), 'fd00::1.8.1');
    assert.equal(
      text(ask(version, RpcbindProcedure.GETADDR, binding(100_003, 3, 'tcp', '192.0.2.7.0.111'))),
      '192.0.2.7.8.1',
      'as the caller reaches us',
    );
    assert.equal(text(ask(version, RpcbindProcedure.GETADDR, binding(100_003, 3, 'tcp6', '192.0.2.7.0.111'))), 'fd00::1.8.1', 'wrong family');
    assert.equal(text(ask(version, RpcbindProcedure.GETADDR, binding(100_003, 3, 'tcp', '0.0.0.0.0.0'))), '10.1.1.1.8.1');
    assert.equal(text(ask(version, RpcbindProcedure.GETADDR, binding(100_021, 4, 'tcp'))), '');
    assert.equal(text(ask(version, RpcbindProcedure.GETADDR, binding(100_003, 3, 'local'))), '');
    assert.equal(text(ask(version, RpcbindProcedure.GETADDR, binding(100_003, 2, 'tcp'))), '10.1.1.1.8.1');
    assert.equal(number(ask(version, RpcbindProcedure.GETTIME, nothing)), 1_700_000_000);
  }
  assert.equal(text(ask(4, RpcbindProcedure.GETVERSADDR, binding(100_003, 2, 'tcp'))), '', 'exactly this version');
  assert.equal(text(ask(4, RpcbindProcedure.GETVERSADDR, binding(100_003, 3, 'tcp'))), '10.1.1.1.8.1');
  assert.equal(ask(3, RpcbindProcedure.GETVERSADDR, binding(100_003, 3, 'tcp')), 'procedure-unavailable');
  const dump = ask(4, RpcbindProcedure.DUMP, nothing);
  assert.ok(dump instanceof XdrReader);
  const netids: string[] = [];
  while (dump.bool()) {
    assert.deepEqual([dump.uint32(), dump.uint32()], [100_003, 3]);
    netids.push(`${dump.string(255)} ${dump.string(255)} ${dump.string(255)}`);
  }
  dump.assertEnd();
  assert.deepEqual(netids, ['tcp 10.1.1.1.8.1 superuser', 'udp 10.1.1.1.8.1 superuser', 'tcp6 fd00::1.8.1 superuser', 'udp6 fd00::1.8.1 superuser']);
  assert.equal(truth(ask(4, RpcbindProcedure.UNSET, binding(100_003, 3, 'tcp6'))), true);
  assert.equal(text(ask(4, RpcbindProcedure.GETADDR, binding(100_003, 3, 'tcp6'))), '');
  assert.equal(truth(ask(4, RpcbindProcedure.UNSET, binding(100_003, 3, 'quic'))), false);
  assert.equal(truth(ask(4, RpcbindProcedure.UNSET, binding(100_003, 3, ''))), true);
  assert.equal(text(ask(4, RpcbindProcedure.GETADDR, binding(100_003, 3, 'tcp'))), '');
});

test('an unknown version is answered with the port of the newest one', () => {
  const { ask, table } = subject();
  for (const [version, port] of [
    [1, 11],
    [3, 33],
    [2, 22],
  ] as const) {
    table.set({ program: 100_005, version, netid: 'tcp', port });
  }
  assert.equal(number(ask(2, PortmapProcedure.GETPORT, mapping(100_005, 2, 6, 0))), 22);
  assert.equal(number(ask(2, PortmapProcedure.GETPORT, mapping(100_005, 9, 6, 0))), 33);
});

test('indirect calls are not made for anybody', () => {
  const { ask } = subject();
  assert.equal(ask(2, PortmapProcedure.CALLIT, nothing), 'procedure-unavailable');
  for (const procedure of [5, 7, 8, 10, 11, 12, 13]) assert.equal(ask(4, procedure, nothing), 'procedure-unavailable');
});

test('the table is bounded', () => {
  const { ask, table } = subject();
  let accepted = 0;
  for (let program = 1; program <= 2000; program++) if (truth(ask(2, PortmapProcedure.SET, mapping(program, 1, 6, 7)))) accepted += 1;
  assert.ok(accepted >= 100 && accepted <= 1000);
  assert.equal(table.list().length, accepted);
});

test('universal addresses round trip, and what is none is refused', () => {
  assert.equal(formatUniversalAddress('192.0.2.1', 2049), '192.0.2.1.8.1');
  assert.deepEqual(parseUniversalAddress('192.0.2.1.8.1'), { host: '192.0.2.1', port: 2049 });
  assert.deepEqual(parseUniversalAddress('2001:db8::1.255.255'), { host: '2001:db8::1', port: 65_535 });
  for (const bad of ['', '1.2.3.4', '192.0.2.1.256.1', '192.0.2.1.8', 'localhost.8.1', '192.0.2.1.8.-1', '/run/rpcbind.sock']) {
    assert.equal(parseUniversalAddress(bad), null, bad);
  }
});
