import assert from 'node:assert/strict';
import { test } from 'node:test';

import { type ModelObject, NamespaceModel, type ObservedEntry } from './namespace-model.ts';

const entry = (fileid: number, changes: Partial<ObservedEntry> = {}): ObservedEntry => ({ fileid, kind: 'file', mode: 0o600, nlink: 1, ...changes });
const file = (fileid: number | null): ModelObject => ({ kind: 'file', fileid, mode: 0o600 });

function modelWith(...names: [string, number][]): NamespaceModel {
  const model = new NamespaceModel();
  for (const [path, fileid] of names) model.done(model.begin('create', new Map([[path, file(fileid)]])));
  return model;
}

test('an answered CREATE that is gone, and a removed name that is back, are violations', () => {
  const model = modelWith(['a', 70], ['b', 71]);
  model.done(model.begin('remove', new Map([['b', null]])));
  assert.deepEqual(model.verifyAndAdopt(new Map([['b', entry(71)]])), [
    'a is gone (fileid 70)',
    'b is there (fileid 71) but was removed, renamed or never made',
  ]);
});

test('an unanswered RENAME over a name has happened or not, nothing between', () => {
  const outcomes: [Map<string, ObservedEntry>, boolean][] = [
    [
      new Map([
        ['a', entry(70)],
        ['b', entry(71)],
      ]),
      true,
    ],
    [new Map([['b', entry(70)]]), true],
    [new Map([['a', entry(70)]]), false],
    [new Map([['b', entry(71)]]), false],
    [
      new Map([
        ['a', entry(70)],
        ['b', entry(70)],
      ]),
      false,
    ],
    [new Map(), false],
  ];
  for (const [observed, good] of outcomes) {
    const model = modelWith(['a', 70], ['b', 71]);
    const moved = model.names.get('a');
    assert.ok(moved !== undefined);
    model.begin(
      'rename',
      new Map([
        ['a', null],
        ['b', moved],
      ]),
    );
    assert.equal(model.verifyAndAdopt(observed).length === 0, good, JSON.stringify([...observed]));
  }
});

test('an unanswered CREATE may have made an object with a new fileid, not with that of another', () => {
  for (const [fileid, good] of [
    [99, true],
    [70, false],
  ] as const) {
    const model = modelWith(['a', 70]);
    model.begin('create', new Map([['b', file(null)]]));
    assert.equal(
      model.verifyAndAdopt(
        new Map([
          ['a', entry(70)],
          ['b', entry(fileid)],
        ]),
      ).length === 0,
      good,
    );
  }
});

test('fileid, kind, mode and link count must be as answered', () => {
  for (const wrong of [entry(71), entry(70, { kind: 'directory' }), entry(70, { mode: 0o644 }), entry(70, { nlink: 2 })]) {
    assert.equal(modelWith(['a', 70]).verifyAndAdopt(new Map([['a', wrong]])).length, 1, JSON.stringify(wrong));
  }
  const model = modelWith(['a', 70]);
  const object = model.names.get('a');
  assert.ok(object !== undefined);
  model.done(model.begin('link', new Map([['b', object]])));
  model.begin('setattr', new Map(), { object, after: 0o640 });
  const linked = entry(70, { nlink: 2, mode: 0o640 });
  assert.deepEqual(
    model.verifyAndAdopt(
      new Map([
        ['a', linked],
        ['b', linked],
      ]),
    ),
    [],
  );
});

test('paths and objects of an operation under way are not free', () => {
  const model = modelWith(['a', 70], ['b', 71]);
  const object = model.names.get('a');
  assert.ok(object !== undefined);
  const change = model.begin('link', new Map([['c', object]]));
  assert.equal(model.isFree(['c']), false);
  assert.equal(model.isFree(['a']), false);
  assert.equal(model.isFree(['b']), true);
  model.refused(change);
  assert.equal(model.isFree(['a', 'c']), true);
});
