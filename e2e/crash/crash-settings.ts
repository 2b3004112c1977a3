/** Settings of a router under the crash harness: small segments and short times, so that every part of an object's life happens within seconds. */
export const crashSettings: Readonly<Record<string, string>> = {};
