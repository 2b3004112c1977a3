/** Golden bytes of replies, and what the server says to calls that it does not execute (RFC 5531 §9). */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { withEchoServer } from './echo-server.ts';
import { RawConnection } from './raw-connection.ts';

const CALL = '00000000 00000002';
const ECHO = '20000001 00000003';
const NONE = '00000000 00000000';
/** stamp 1, machine "esx", uid 0, gid 0, gids 0 */
const SYS = '00000001 00000018 00000001 00000003 65737800 00000000 00000000 00000000';
const SUCCESS = '00000001 00000000 00000000 00000000 00000000';

function bytes(hex: string): Buffer {
  return Buffer.from(hex.replaceAll(/\s/g, ''), 'hex');
}

function record(hex: string): Buffer {
  const body = bytes(hex);
  const mark = Buffer.alloc(4);
  mark.writeUInt32BE((0x8000_0000 | body.length) >>> 0);
  return Buffer.concat([mark, body]);
}

/** Sends a message; expects one reply, and the connection to live on: a NULL call behind it is answered. */
async function expectReply(message: string, reply: string): Promise<void> {
  await withEchoServer(async ({ port }) => {
    const connection = await RawConnection.open(port);
    await connection.send(record(message));
    await connection.send(record(`0000ffff ${CALL} ${ECHO} 00000000 ${NONE} ${NONE}`));
    await connection.waitForReplies(2);
    // A program that answers later may be overtaken.
    const expected = [bytes(reply).toString('hex'), bytes(`0000ffff ${SUCCESS}`).toString('hex')];
    assert.deepEqual(connection.replies.map((one) => one.toString('hex')).sort(), expected.sort());
    await connection.close();
  });
}

test('a successful reply is xid, REPLY, MSG_ACCEPTED, a null verifier, SUCCESS, results', () =>
  expectReply(`00000007 ${CALL} ${ECHO} 00000001 ${SYS} ${NONE} 00000005 68656c6c 6f000000`, `00000007 ${SUCCESS} 00000005 68656c6c 6f000000`));

test('RFC 5531 §9: RPC_MISMATCH with the lowest and highest version supported', () =>
  expectReply(`00000007 00000000 00000003 ${ECHO} 00000000 ${NONE} ${NONE}`, '00000007 00000001 00000001 00000000 00000002 00000002'));

test('RFC 5531 §9: PROG_UNAVAIL for a program that is not served', () =>
  expectReply(`00000007 ${CALL} 000003e7 00000003 00000000 ${NONE} ${NONE}`, '00000007 00000001 00000000 00000000 00000000 00000001'));

test('RFC 5531 §9: PROG_MISMATCH with the lowest and highest version of the program', async () => {
  const mismatch = '00000007 00000001 00000000 00000000 00000000 00000002 00000003 00000003';
  await expectReply(`00000007 ${CALL} 20000001 00000002 00000000 ${NONE} ${NONE}`, mismatch);
  await expectReply(`00000007 ${CALL} 20000001 00000004 00000000 ${NONE} ${NONE}`, mismatch);
});

test('RFC 5531 §9: PROC_UNAVAIL for a procedure that the program does not have', () =>
  expectReply(`00000007 ${CALL} ${ECHO} 00000063 ${NONE} ${NONE}`, '00000007 00000001 00000000 00000000 00000000 00000003'));

test('RFC 5531 §9: GARBAGE_ARGS for arguments that do not decode', async () => {
  const garbage = '00000007 00000001 00000000 00000000 00000000 00000004';
  await expectReply(`00000007 ${CALL} ${ECHO} 00000001 ${NONE} ${NONE}`, garbage);
  await expectReply(`00000007 ${CALL} ${ECHO} 00000001 ${NONE} ${NONE} ffffffff 00000000`, garbage);
  await expectReply(`00000007 ${CALL} ${ECHO} 00000000 ${NONE} ${NONE} 00000000`, garbage);
  await expectReply(`00000007 ${CALL} ${ECHO} 00000002 ${NONE} ${NONE} 00000008`, garbage);
});

test('RFC 5531 §9: SYSTEM_ERR when the program fails', () =>
  expectReply(`00000007 ${CALL} ${ECHO} 00000006 ${NONE} ${NONE}`, '00000007 00000001 00000000 00000000 00000000 00000005'));

test('RFC 5531 §9: AUTH_TOOWEAK when the program asks for more', () =>
  expectReply(`00000007 ${CALL} ${ECHO} 00000007 ${NONE} ${NONE}`, '00000007 00000001 00000001 00000001 00000005'));

test('RFC 5531 §9: AUTH_REJECTEDCRED for a short-hand credential, which this server never hands out', () =>
  expectReply(`00000007 ${CALL} ${ECHO} 00000000 00000002 00000004 aabbccdd ${NONE}`, '00000007 00000001 00000001 00000001 00000002'));

test('garbage credentials are answered with AUTH_BADCRED, and the connection lives on', async (t) => {
  const badcred = '00000007 00000001 00000001 00000001 00000001';
  const head = `00000007 ${CALL} ${ECHO} 00000000`;
  const gids17 = '00000011'.concat(' 00000001'.repeat(17));
  const cases: Record<string, string> = {
    'unknown flavor': `${head} 00000006 00000000 ${NONE}`,
    'body longer than 400 bytes': `${head} 00000001 00000194 ${'00'.repeat(404)} ${NONE}`,
    'body longer than the record': `${head} 00000001 00000190 00000000`,
    'length of 4 GiB': `${head} 00000001 ffffffff 00000000`,
    'nothing at all': head,
    'flavor only': `${head} 00000001`,
    'body too short for its fields': `${head} 00000001 00000008 00000001 00000000 ${NONE}`,
    'bytes behind the gids': `${head} 00000001 00000018 00000001 00000000 00000000 00000000 00000000 00000000 ${NONE}`,
    '17 gids': `${head} 00000001 00000058 00000001 00000000 00000000 00000000 ${gids17} ${NONE}`,
    'a count of 2^32-1 gids': `${head} 00000001 00000014 00000001 00000000 00000000 00000000 ffffffff ${NONE}`,
    'machine name longer than 255': `${head} 00000001 00000114 00000001 00000100 ${'61'.repeat(256)} 00000000 00000000 00000000 ${NONE}`,
    'machine name longer than the body': `${head} 00000001 00000014 00000001 000000ff 00000000 00000000 00000000 ${NONE}`,
  };
  for (const [name, message] of Object.entries(cases)) await t.test(name, () => expectReply(message, badcred));
});

test('a verifier that is not AUTH_NONE, or missing, is answered with AUTH_BADVERF', async () => {
  const badverf = '00000007 00000001 00000001 00000001 00000003';
  await expectReply(`00000007 ${CALL} ${ECHO} 00000000 ${SYS} 00000006 00000000`, badverf);
  await expectReply(`00000007 ${CALL} ${ECHO} 00000000 ${SYS}`, badverf);
  await expectReply(`00000007 ${CALL} ${ECHO} 00000000 ${NONE} 00000000 ffffffff`, badverf);
});

test('a call that ends within its header gets GARBAGE_ARGS', () =>
  expectReply(`00000007 00000000 00000002 20000001`, '00000007 00000001 00000000 00000000 00000000 00000004'));

test('a record that is no call ends the connection: there is nothing to answer to', async () => {
  const replyMessage = `00000007 ${SUCCESS}`;
  for (const message of ['', '00', '00000007', '00000007 000000', replyMessage]) {
    await withEchoServer(async ({ port, server }) => {
      const connection = await RawConnection.open(port);
      await connection.send(record(message));
      await connection.waitForClose();
      assert.equal(connection.replies.length, 0);
      assert.equal(server.usage.inFlightBytes, 0);
    });
  }
});
