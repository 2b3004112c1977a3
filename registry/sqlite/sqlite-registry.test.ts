import { registryConformance } from '../conformance.ts';
import { TestRegistry } from './testing/test-registry.ts';

registryConformance('sqlite', () => TestRegistry.open());
