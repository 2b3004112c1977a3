/*
 * stamped-io DEVICE MIB: the disk of a virtual machine under load that is verified. Four processes, each on its quarter of the first MIB MiB, write blocks of 4 to 64 KiB
 * with O_DIRECT, flush now and then, and read at random what they know they wrote. Lines on standard input:
 *   report NAME   prints "report NAME operations=N longest_us=N errors=N wrong=N" of the time since the last one
 *   stop          all I/O ends, everything is read again; prints "verified blocks=N wrong=N errors=N"; exit status 0 if there were neither
 * Runs in a guest whose only other program is busybox, hence static C.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 4, BLOCK = 4096, RUN_MAX = 16 };

struct shared {
  volatile int stop;
  volatile uint64_t operations[WORKERS], longest_us[WORKERS], errors[WORKERS], wrong[WORKERS];
};

static struct shared *shared;

static uint64_t now_us(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (uint64_t)at.tv_sec * 1000000 + at.tv_nsec / 1000;
}

static uint32_t state;
static uint32_t below(uint32_t limit) {
  state = state * 1664525u + 1013904223u;
  return (uint32_t)(((uint64_t)state * limit) >> 32);
}

/* Every word of a block says which block and which write it is of; write 0 is the zeros of the beginning. */
static void stamp(uint64_t *words, uint64_t block, uint64_t write) {
  for (int i = 0; i < BLOCK / 8; i++) words[i] = write == 0 ? 0 : (block << 40) ^ (write << 12) ^ (uint64_t)i;
}

static void timed(int worker, uint64_t began, int failed) {
  uint64_t took = now_us() - began;
  if (took > shared->longest_us[worker]) shared->longest_us[worker] = took;
  shared->operations[worker]++;
  if (failed) {
    shared->errors[worker]++;
    fprintf(stdout, "error %s\n", strerror(errno));
  }
}

static void check(int fd, int worker, uint64_t *buffer, uint64_t *expected, uint64_t block, uint32_t count, const uint32_t *last, uint64_t first) {
  uint64_t began = now_us();
  ssize_t got = pread(fd, buffer, (size_t)count * BLOCK, (off_t)block * BLOCK);
  timed(worker, began, got != (ssize_t)count * BLOCK);
  if (got != (ssize_t)count * BLOCK) return;
  for (uint32_t i = 0; i < count; i++) {
    stamp(expected, block + i, last[block + i - first]);
    if (memcmp(buffer + i * (BLOCK / 8), expected, BLOCK) == 0) continue;
    shared->wrong[worker]++;
    printf("wrong block %llu: expected write %u, found word %llx\n", (unsigned long long)(block + i), last[block + i - first], (unsigned long long)buffer[i * (BLOCK / 8)]);
  }
}

static void work(const char *device, int worker, uint64_t first, uint32_t blocks) {
  int fd = open(device, O_RDWR | O_DIRECT);
  uint64_t *buffer, *expected;
  uint32_t *last = calloc(blocks, sizeof *last), write_number = 0;
  if (fd < 0 || last == NULL || posix_memalign((void **)&buffer, BLOCK, RUN_MAX * BLOCK) != 0 || posix_memalign((void **)&expected, BLOCK, BLOCK) != 0) {
    shared->errors[worker]++;
    exit(1);
  }
  state = 12345u + (uint32_t)worker;
  while (!shared->stop) {
    uint32_t count = 1 + below(RUN_MAX), at = below(blocks - count);
    if (below(3) == 0) {
      check(fd, worker, buffer, expected, first + at, count, last, first);
    } else {
      write_number++;
      for (uint32_t i = 0; i < count; i++) {
        stamp(buffer + i * (BLOCK / 8), first + at + i, write_number);
        last[at + i] = write_number;
      }
      uint64_t began = now_us();
      ssize_t put = pwrite(fd, buffer, (size_t)count * BLOCK, (off_t)(first + at) * BLOCK);
      timed(worker, began, put != (ssize_t)count * BLOCK);
    }
    if (below(50) == 0) {
      uint64_t began = now_us();
      timed(worker, began, fdatasync(fd) != 0);
    }
  }
  for (uint32_t at = 0; at < blocks; at += RUN_MAX) check(fd, worker, buffer, expected, first + at, blocks - at < RUN_MAX ? blocks - at : RUN_MAX, last, first);
  exit(0);
}

static uint64_t sum(volatile uint64_t *values) {
  uint64_t all = 0;
  for (int i = 0; i < WORKERS; i++) all += values[i];
  return all;
}

int main(int argc, char **argv) {
  char line[200];
  if (argc != 3) return 2;
  uint32_t blocks = (uint32_t)atoi(argv[2]) * (1048576 / BLOCK) / WORKERS;
  setvbuf(stdout, NULL, _IOLBF, 0);
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < WORKERS; i++)
    if (fork() == 0) work(argv[1], i, (uint64_t)i * blocks, blocks);
  printf("started\n");
  while (fgets(line, sizeof line, stdin) != NULL) {
    line[strcspn(line, "\r\n")] = 0;
    if (strcmp(line, "stop") == 0) break;
    if (strncmp(line, "report ", 7) != 0) continue;
    uint64_t longest = 0, operations = sum(shared->operations);
    for (int i = 0; i < WORKERS; i++) {
      if (shared->longest_us[i] > longest) longest = shared->longest_us[i];
      shared->longest_us[i] = 0;
      shared->operations[i] = 0;
    }
    printf("report %s operations=%llu longest_us=%llu errors=%llu wrong=%llu\n", line + 7, (unsigned long long)operations, (unsigned long long)longest,
           (unsigned long long)sum(shared->errors), (unsigned long long)sum(shared->wrong));
  }
  shared->stop = 1;
  int failures = 0, status;
  while (wait(&status) > 0)
    if (status != 0) failures++;
  printf("verified blocks=%u wrong=%llu errors=%llu\n", blocks * WORKERS, (unsigned long long)sum(shared->wrong), (unsigned long long)sum(shared->errors));
  return failures == 0 && sum(shared->wrong) == 0 && sum(shared->errors) == 0 ? 0 : 1;
}
