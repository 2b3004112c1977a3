import { registryConformance } from '../conformance.ts';
import { TestRegistry } from './test-registry.ts';

registryConformance('sqlite', () => TestRegistry.open());
