import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ExportRules, openExport } from './export-rules.ts';

test('the first rule whose network contains the address decides, IPv4 and IPv6', () => {
  const common = { squash: 'none', anonymousUid: 1, anonymousGid: 2 } as const;
  const rules = new ExportRules([
    {
      name: 'vpool1',
      rules: [
        { networks: ['10.1.0.0/16', 'fd00::/8'], readOnly: false, ...common },
        { networks: ['10.0.0.0/8', '192.0.2.7'], readOnly: true, ...common },
      ],
    },
  ]);
  const decide = (address: string): string => {
    const decision = rules.decide(address, 'vpool1');
    return decision === 'denied' ? 'denied' : decision.readOnly ? 'ro' : 'rw';
  };
  assert.equal(decide('10.1.255.255'), 'rw');
  assert.equal(decide('::ffff:10.1.0.1'), 'rw');
  assert.equal(decide('fdff::1'), 'rw');
  assert.equal(decide('10.2.0.0'), 'ro');
  assert.equal(decide('192.0.2.7'), 'ro');
  for (const address of ['192.0.2.8', '11.0.0.0', 'fe80::1', 'fe80::1%eth0', '', 'localhost']) assert.equal(decide(address), 'denied', address);
  assert.deepEqual(rules.list(), [{ path: '/vpool1', groups: ['10.1.0.0/16', 'fd00::/8', '10.0.0.0/8', '192.0.2.7'] }]);
});

test('an export of everyone has no root squash and is writable', () => {
  for (const address of ['8.8.8.8', '2001:db8::1']) {
    assert.deepEqual(openExport('x').decide(address, 'x'), { readOnly: false, squash: 'none', anonymousUid: 65_534, anonymousGid: 65_534 });
  }
});

test('what is no network is refused with a message that says what is one', () => {
  for (const network of ['', '10.0.0.0/33', '10.0.0/8', 'fd00::/129', 'host', '10.0.0.0/', '10.0.0.0/x', '10.0.0.0/-1']) {
    assert.throws(() => openExport('x', [network]), { code: 'export-network' }, network);
  }
});
