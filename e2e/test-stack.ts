/** What a test must give back: one stack per test, emptied last in, first out, when the test ends, well or not. */
import type { TestContext } from 'node:test';

const stacks = new WeakMap<TestContext, AsyncDisposableStack>();

/** The stack of `t`. (node:test runs several `after` hooks in the order of registration, which would remove a directory under a running router.) */
export function stackOf(t: TestContext): AsyncDisposableStack {
  const present = stacks.get(t);
  if (present !== undefined) return present;
  const stack = new AsyncDisposableStack();
  stacks.set(t, stack);
  t.after(() => stack.disposeAsync());
  return stack;
}

/** Whether the test body of `t` ended well; for what runs at its end. Node 24 has it, its types not yet. */
export function passed(t: TestContext): boolean {
  return (t as TestContext & { readonly passed: boolean }).passed;
}
