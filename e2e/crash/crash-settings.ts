/** Settings of a router under the crash harness: little room and short times, so that every part of an object's life happens within seconds. */
export const crashSettings: Readonly<Record<string, string>> = {
  VFERRY_LOG_SEGMENT_BYTES: '4MiB',
  VFERRY_LOG_SEAL_AFTER_MS: '300ms',
  VFERRY_LOG_CHECKPOINT_AFTER_BYTES: '4MiB',
  VFERRY_VPOOL_GRACE_TIME_MS: '0s',
  VFERRY_CACHE_SSD_BYTES: '8MiB',
  VFERRY_CACHE_RAM_BYTES: '16MiB',
};
