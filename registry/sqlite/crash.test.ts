/** What was answered is there after a kill: with SIGKILL at any moment, and at the fail points around the commit. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { test } from 'node:test';

import { World } from '../conformance/world.ts';
import { RegistryProcess } from './testing/registry-process.ts';
import { TestRegistry } from './testing/test-registry.ts';

/** A directory without a registry in it; removed by the caller's disposal. */
async function emptyDirectory(): Promise<TestRegistry> {
  const place = await TestRegistry.open();
  await place.stop();
  for (const name of fs.readdirSync(place.directory)) fs.rmSync(`${place.directory}/${name}`);
  return place;
}

async function namesIn(place: TestRegistry): Promise<Set<string>> {
  await place.start();
  const world = new World(place);
  const names = new Set(await world.names());
  await world.assertSound();
  await place.stop();
  return names;
}

test('every acknowledged create is there after SIGKILL at an arbitrary moment, and the registry is sound', async () => {
  await using place = await emptyDirectory();
  const acknowledged = new Set<string>();
  const asked = new Set<string>();
  for (let round = 0; round < 6; round += 1) {
    await using running = await RegistryProcess.start(place.path);
    let next = 0;
    const ask = (): void => {
      const text = `r${round}-${next++}`;
      asked.add(text);
      running.send({ do: 'create', text, operationId: `client|${text}` });
    };
    for (let outstanding = 0; outstanding < 16; outstanding += 1) ask();
    // The kill comes after a different number of answers each round, with others under way.
    for (let answers = 0; answers < 40 + round * 37; answers += 1) {
      const reply = await running.reply();
      assert.equal(reply?.kind, 'created');
      acknowledged.add(String(reply.text));
      ask();
    }
    running.kill();
    for (let reply = await running.reply(); reply !== null; reply = await running.reply()) acknowledged.add(String(reply.text));
    await running.ended();
    const present = await namesIn(place);
    for (const name of acknowledged) assert.ok(present.has(name), `${name} was acknowledged`);
    for (const name of present) assert.ok(asked.has(name), `${name} was never asked for`);
  }
});

test('killed before the commit: the verb has no effect; asked again, it is executed', async () => {
  await using place = await emptyDirectory();
  {
    // The first commit is that of the router's join.
    await using running = await RegistryProcess.start(place.path, { failPoints: 'registry.before-commit=kill@3' });
    assert.equal((await running.ask({ do: 'create', text: 'one', operationId: 'c|1' })).kind, 'created');
    assert.equal((await running.ask({ do: 'create', text: 'two', operationId: 'c|2' })).error, 'the process ended');
  }
  assert.deepEqual(await namesIn(place), new Set(['one']));
  await using again = await RegistryProcess.start(place.path);
  assert.equal((await again.ask({ do: 'create', text: 'two', operationId: 'c|2' })).kind, 'created');
});

test('killed after the commit: the verb has its effect; asked again with its operation id, it answers what it had done', async () => {
  await using place = await emptyDirectory();
  {
    await using running = await RegistryProcess.start(place.path, { failPoints: 'registry.after-commit=kill@2' });
    assert.equal((await running.ask({ do: 'create', text: 'one', operationId: 'c|1' })).error, 'the process ended');
  }
  assert.deepEqual(await namesIn(place), new Set(['one']));
  await using again = await RegistryProcess.start(place.path);
  assert.equal((await again.ask({ do: 'create', text: 'one', operationId: 'c|2' })).kind, 'exists');
  assert.equal((await again.ask({ do: 'create', text: 'one', operationId: 'c|1' })).kind, 'created');
});

test('killed while the registry is made: the next start makes it', async () => {
  await using place = await emptyDirectory();
  // An empty file is what a crash before the first commit leaves.
  fs.writeFileSync(place.path, '');
  assert.deepEqual(await namesIn(place), new Set());
});

test('a failed commit is answered as unavailable and has no effect; a lost answer is found by its operation id', async () => {
  await using place = await emptyDirectory();
  {
    await using running = await RegistryProcess.start(place.path, { failPoints: 'registry.before-commit=error@2,registry.after-commit=error@3' });
    assert.equal((await running.ask({ do: 'create', text: 'one', operationId: 'c|1' })).error, 'registry-unavailable');
    assert.match(String((await running.ask({ do: 'health' })).health), /fail point registry.before-commit/);
    assert.deepEqual((await running.ask({ do: 'names' })).names, []);
    // The second commit that is tried after the join is the second one that arrives behind it.
    assert.equal((await running.ask({ do: 'create', text: 'two', operationId: 'c|2' })).kind, 'created');
    assert.equal((await running.ask({ do: 'health' })).health, null);
    assert.equal((await running.ask({ do: 'create', text: 'three', operationId: 'c|3' })).error, 'registry-unavailable');
    assert.equal((await running.ask({ do: 'create', text: 'three', operationId: 'c|3' })).kind, 'created');
  }
  assert.deepEqual(await namesIn(place), new Set(['two', 'three']));
});

test('a change whose answer was lost is seen by every read once its caller heard of the loss', async () => {
  await using place = await emptyDirectory();
  await using running = await RegistryProcess.start(place.path, { failPoints: 'registry.after-commit=error@2' });
  assert.equal((await running.ask({ do: 'mode' })).mode, 0o755);
  assert.equal((await running.ask({ do: 'chmod', text: '511' })).error, 'registry-unavailable');
  assert.equal((await running.ask({ do: 'mode' })).mode, 0o777);
});

test('a slow commit does not hold up the thread that serves: reads are answered meanwhile', async () => {
  await using place = await emptyDirectory();
  await using running = await RegistryProcess.start(place.path, { failPoints: 'registry.before-commit=delay:300@2+' });
  const reply = await running.ask({ do: 'reads-during-create', text: 'one' });
  assert.equal(reply.kind, 'created');
  assert.ok((reply.reads ?? 0) > 100, `${reply.reads} reads`);
});

test('no space left: verbs fail with registry-no-space, nothing acknowledged is lost, and it goes on when there is space again', async () => {
  await using place = await emptyDirectory();
  await using running = await RegistryProcess.start(place.path, { mount: `mount -t tmpfs -o size=3m tmpfs ${place.directory}` });
  const created: string[] = [];
  let refusal: string | undefined;
  for (let index = 0; refusal === undefined && index < 10_000; index += 1) {
    const text = `${index}-${'x'.repeat(200)}`;
    const reply = await running.ask({ do: 'create', text, operationId: `c|${index}` });
    if (reply.kind === 'created') created.push(text);
    else refusal = reply.error;
  }
  assert.equal(refusal, 'registry-no-space');
  assert.match(String((await running.ask({ do: 'health' })).health), /no space left/);
  assert.deepEqual((await running.ask({ do: 'names' })).names, created, 'reads go on');
  await running.ask({ do: 'shell', text: `mount -o remount,size=64m ${place.directory}` });
  // Without any client: a probe finds out.
  for (let looks = 0; looks < 4000; looks += 1) {
    if ((await running.ask({ do: 'health' })).health === null) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.equal((await running.ask({ do: 'health' })).health, null);
  assert.equal((await running.ask({ do: 'create', text: 'after' })).kind, 'created');
  assert.deepEqual((await running.ask({ do: 'names' })).names, [...created, 'after']);
});

test('a database that was taken away under the router: verbs are unavailable, and it goes on when it is back', async () => {
  await using place = await emptyDirectory();
  await using running = await RegistryProcess.start(place.path);
  await running.ask({ do: 'create', text: 'before' });
  // Linux lets the open files be written and synced for ever; what was acknowledged then would be gone at the next start.
  await running.ask({ do: 'shell', text: `mkdir ${place.directory}/away; mv ${place.directory}/registry.db* ${place.directory}/away` });
  assert.equal((await running.ask({ do: 'create', text: 'lost' })).error, 'registry-unavailable');
  assert.match(String((await running.ask({ do: 'health' })).health), /removed or replaced|cannot be written/);
  assert.equal((await running.ask({ do: 'create', text: 'lost-too' })).error, 'registry-unavailable');
  // A copy in its place is not it: readers still have the old file.
  await running.ask({ do: 'shell', text: `cp ${place.directory}/away/registry.db* ${place.directory}` });
  assert.equal((await running.ask({ do: 'create', text: 'lost-three' })).error, 'registry-unavailable');
  await running.ask({ do: 'shell', text: `rm ${place.directory}/registry.db*` });
  await running.ask({ do: 'shell', text: `mv ${place.directory}/away/* ${place.directory}` });
  assert.equal((await running.ask({ do: 'create', text: 'after' })).kind, 'created');
  assert.equal((await running.ask({ do: 'health' })).health, null);
  const names = (await running.ask({ do: 'names' })).names ?? [];
  assert.ok(names.includes('before') && names.includes('after'));
  assert.ok(!names.includes('lost-too') && !names.includes('lost-three'));
});
