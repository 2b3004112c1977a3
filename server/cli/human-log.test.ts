import assert from 'node:assert/strict';
import { test } from 'node:test';

import { humanLogLine } from './human-log.ts';

const BASE = { level: 'warn', time: '2026-11-22T10:20:30.456Z' };

test('a line has time, level, message and fields', () => {
  const line = humanLogLine(JSON.stringify({ ...BASE, volume: 'a-flat.vmdk', bytes: 7, note: 'two words', msg: 'slow disk' }), false);
  assert.equal(line, '10:20:30.456 WARN  slow disk  volume=a-flat.vmdk bytes=7 note="two words"\n');
  assert.equal(humanLogLine(JSON.stringify({ ...BASE, msg: 'x' }), true), '10:20:30.456 \u001B[33mWARN \u001B[0m x\n');
});

test('an error is shown with its stack below the line', () => {
  const line = humanLogLine(JSON.stringify({ ...BASE, msg: 'failed', err: { message: 'x', stack: 'Error: x\n    at y' } }), false);
  assert.equal(line, '10:20:30.456 WARN  failed\n    Error: x\n        at y\n');
});

test('text from clients cannot forge lines or send escapes to the terminal', () => {
  const evil = 'x\n10:20:30.456 ERROR forged\u001B[2J\u009B31m\u0007';
  const line = humanLogLine(JSON.stringify({ ...BASE, name: evil, msg: evil, err: { stack: `Error: ${evil}` } }), false);
  // eslint-disable-next-line no-control-regex -- the point of the test
  assert.doesNotMatch(line, /[\u0000-\u0009\u000B-\u001F\u007F-\u009F]/);
  assert.deepEqual(
    line
      .split('\n')
      .filter((text) => text !== '')
      .map((text) => text.slice(0, 4)),
    ['10:2', '    ', '    '],
  );
});

test('what is no log line is shown as it is', () => {
  assert.equal(humanLogLine('plain text\n', false), 'plain text\n');
});
