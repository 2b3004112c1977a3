import assert from 'node:assert/strict';
import { test } from 'node:test';

import { rejectsWith } from '../conformance.ts';
import { StoreError } from '../object-store.ts';
import { VirtualClock } from '../virtual-clock.ts';
import type { SwiftGrant } from './swift-auth.ts';
import { SwiftSessions } from './swift-sessions.ts';

/** Sessions whose authentications the test answers. */
function setUp() {
  const clock = new VirtualClock();
  const asked: PromiseWithResolvers<SwiftGrant>[] = [];
  const sessions = new SwiftSessions(() => {
    const answer = Promise.withResolvers<SwiftGrant>();
    asked.push(answer);
    return answer.promise;
  }, clock);
  const grant = (token: string, lifeMs: number | null): void => asked.at(-1)?.resolve({ token, storageUrl: 'http://swift/v1/AUTH_x', lifeMs });
  const token = async (): Promise<string> => (await sessions.current(undefined, 'test')).token;
  return { clock, asked, sessions, grant, token };
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('the first calls share one authentication', async () => {
  const { asked, grant, token } = setUp();
  const tokens = Promise.all([token(), token(), token()]);
  grant('a', null);
  assert.deepEqual(await tokens, ['a', 'a', 'a']);
  assert.equal(await token(), 'a');
  assert.equal(asked.length, 1);
});

test('a token is renewed before its end, once, while calls go on with the one in hand', async () => {
  const { clock, asked, grant, token } = setUp();
  const first = token();
  grant('a', 3_600_000);
  assert.equal(await first, 'a');
  clock.advance(3_600_000 - 5 * 60_000 - 1);
  assert.equal(await token(), 'a');
  assert.equal(asked.length, 1);
  clock.advance(1);
  assert.deepEqual(await Promise.all([token(), token(), token()]), ['a', 'a', 'a']);
  assert.equal(asked.length, 2);
  grant('b', 3_600_000);
  await settled();
  assert.equal(await token(), 'b');
  clock.advance(3_600_000 - 5 * 60_000 - 1);
  assert.equal(await token(), 'b');
  assert.equal(asked.length, 2);
});

test('a short life leaves a fifth of it for the renewal', async () => {
  const { clock, asked, grant, token } = setUp();
  const first = token();
  grant('a', 10_000);
  await first;
  clock.advance(7999);
  await token();
  assert.equal(asked.length, 1);
  clock.advance(1);
  assert.equal(await token(), 'a');
  assert.equal(asked.length, 2);
});

test('the life counts from the request for it, so that a slow authentication does not lengthen it', async () => {
  const { clock, asked, grant, token } = setUp();
  const first = token();
  clock.advance(60_000);
  grant('a', 100_000);
  await first;
  clock.advance(20_000);
  await token();
  assert.equal(asked.length, 2);
});

test('an early renewal that fails disturbs nobody, and is tried again after a while', async () => {
  const { clock, asked, grant, token } = setUp();
  const first = token();
  grant('a', 100_000);
  await first;
  clock.advance(80_000);
  assert.equal(await token(), 'a');
  asked.at(-1)?.reject(new StoreError('retry', 'down'));
  await settled();
  assert.equal(await token(), 'a');
  clock.advance(4999);
  assert.equal(await token(), 'a');
  assert.equal(asked.length, 2);
  clock.advance(1);
  assert.equal(await token(), 'a');
  assert.equal(asked.length, 3);
  grant('b', null);
  await settled();
  assert.equal(await token(), 'b');
});

test('past its end a token is not used: calls wait for the next, or get the error of the attempt', async () => {
  const { clock, asked, grant, token } = setUp();
  const first = token();
  grant('a', 100_000);
  await first;
  clock.advance(100_000);
  const failing = token();
  asked.at(-1)?.reject(new StoreError('retry', 'down'));
  await rejectsWith(failing, 'retry');
  const waiting = Promise.all([token(), token()]);
  grant('b', null);
  assert.deepEqual(await waiting, ['b', 'b']);
  assert.equal(asked.length, 3);
});

test('tempauth gives a token that still lives once more: it is then used until it is refused', async () => {
  const { clock, asked, sessions, grant, token } = setUp();
  const first = token();
  grant('a', 100_000);
  await first;
  clock.advance(80_000);
  await token();
  grant('a', 20_000);
  await settled();
  clock.advance(1_000_000);
  const session = await sessions.current(undefined, 'test');
  assert.equal(session.token, 'a');
  assert.equal(asked.length, 2);
  const next = sessions.after(session, undefined, 'test');
  grant('b', 100_000);
  assert.equal((await next).token, 'b');
});

test('a refusal of a token that was granted once more meanwhile is a refusal of both', async () => {
  const { clock, asked, sessions, grant, token } = setUp();
  const first = token();
  grant('a', 100_000);
  await first;
  const early = await sessions.current(undefined, 'test');
  clock.advance(80_000);
  await token();
  grant('a', 20_000);
  await settled();
  const next = sessions.after(early, undefined, 'test');
  assert.equal(asked.length, 3);
  grant('b', 100_000);
  assert.equal((await next).token, 'b');
});

test('a refusal of a session that was replaced meanwhile gives the new one without asking', async () => {
  const { asked, sessions, grant, token } = setUp();
  const first = token();
  grant('a', null);
  await first;
  const old = await sessions.current(undefined, 'test');
  const [one, other] = [sessions.after(old, undefined, 'test'), sessions.after(old, undefined, 'test')];
  assert.equal(asked.length, 2);
  grant('b', null);
  assert.equal((await one).token, 'b');
  assert.equal((await other).token, 'b');
  assert.equal((await sessions.after(old, undefined, 'test')).token, 'b');
  assert.equal(asked.length, 2);
});

test('a call that is aborted stops waiting; the authentication goes on for the others', async () => {
  const { asked, sessions, grant, token } = setUp();
  const controller = new AbortController();
  const aborted = sessions.current(controller.signal, 'test');
  const other = token();
  controller.abort(new Error('enough'));
  await rejectsWith(aborted, 'retry');
  grant('a', null);
  assert.equal(await other, 'a');
  assert.equal(asked.length, 1);
  await rejectsWith(sessions.after(await sessions.current(undefined, 'test'), AbortSignal.abort(), 'test'), 'retry');
});
