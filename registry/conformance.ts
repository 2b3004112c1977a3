/**
 * The conformance suite of the Object Registry's ports: what SQLite passes today, a Redis implementation must pass too.
 *
 * `registryConformance('redis', open)` in a test file registers all of it with node:test; `open` gives a new, empty registry for every test.
 */
import { againstModelConformance } from './conformance/against-model.ts';
import { attributesConformance } from './conformance/attributes.ts';
import { namesConformance } from './conformance/names.ts';
import { operationsConformance } from './conformance/operations.ts';
import { outboxConformance } from './conformance/outbox.ts';
import { ownershipConformance } from './conformance/ownership.ts';
import { renamesConformance } from './conformance/renames.ts';
import type { OpenRegistry } from './conformance/world.ts';

/** Registers the suite's tests; their names begin with `name`. */
export function registryConformance(name: string, open: OpenRegistry): void {
  namesConformance(name, open);
  renamesConformance(name, open);
  attributesConformance(name, open);
  operationsConformance(name, open);
  ownershipConformance(name, open);
  outboxConformance(name, open);
  againstModelConformance(name, open);
}
