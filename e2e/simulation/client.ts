/**
 * A host that mounts the datastore: sends calls to a router, waits, sends them again with the same operation id, there or to another router (as ESXi and
 * libnfs do when an address moves), until one is answered. JUKEBOX is for waiting and asking anew.
 */
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';

import type { Random } from '../../server/core/time.ts';
import type { Caller, FileSystem } from '../../server/nfsd/file-system.ts';
import { Status } from '../../server/nfsd/file-system.ts';
import type { Schedule } from './schedule.ts';
import type { Machine } from './simulated-router.ts';
import { Lane } from './ways.ts';

/** An address does not move before its router was silent for so long. */
const SILENCE_MS_MIN = 5_000;

/** Nothing that goes wrong lasts longer. */
const ANSWER_MS_MAX = 300_000;

export interface ClientWorld {
  readonly schedule: Schedule;
  readonly random: Random;
  readonly machines: readonly Machine[];
  trace(message: string): void;
}

/** `unclear`: times a call was answered JUKEBOX before, or given up: each may have had its effect. */
export interface Answered<T> {
  readonly result: T;
  readonly beganMs: number;
  readonly endedMs: number;
}

export class Client {
  readonly name: string;
  /** The router that its calls go to first. */
  home: number;
  /** Probability that a repetition goes to another router. */
  wander = 0.5;
  jukeboxes = 0;
  retransmissions = 0;
  calls = 0;
  readonly #world: ClientWorld;
  #xid = 0;
  readonly #lanes = new Map<string, Lane>();

  constructor(world: ClientWorld, name: string, home: number) {
    this.#world = world;
    this.name = name;
    this.home = home;
  }

  /** Calls until there is an answer other than JUKEBOX. `unclear` is told of every one that may have had an effect nevertheless, with the time it was sent. */
  async call<T extends { readonly status: Status }>(
    what: string,
    invoke: (fileSystem: FileSystem, caller: Caller) => T | Promise<T>,
    unclear: (beganMs: number) => void = () => undefined,
  ): Promise<Answered<T>> {
    const { schedule, random } = this.#world;
    const beganMs = schedule.nowMs;
    this.calls += 1;
    for (;;) {
      const sentMs = schedule.nowMs;
      const result = await this.#send(what, invoke);
      if (result.status !== Status.JUKEBOX) return { result, beganMs, endedMs: schedule.nowMs };
      this.jukeboxes += 1;
      unclear(sentMs);
      if (schedule.nowMs - beganMs > ANSWER_MS_MAX) throw new Error(`${this.name}: ${what} is told to come back for ${ANSWER_MS_MAX} ms`);
      await schedule.sleep(200 + random.fraction() * 800);
    }
  }

  async #send<T>(what: string, invoke: (fileSystem: FileSystem, caller: Caller) => T | Promise<T>): Promise<T> {
    const { schedule, random, machines } = this.#world;
    this.#xid += 1;
    const caller = this.#caller(this.#xid);
    const answer = Promise.withResolvers<T>();
    let answered = false;
    void answer.promise.then(
      () => {
        answered = true;
      },
      () => {
        answered = true;
      },
    );
    let target = this.home;
    let sentMs = schedule.nowMs;
    // What the former router still says goes to a connection that is closed.
    let connection = 0;
    for (let attempt = 0; ; attempt += 1) {
      if (attempt > 0) this.retransmissions += 1;
      const used = connection;
      this.#transmit(machines[target] as Machine, what, invoke, caller, answer, () => connection === used);
      const patienceMs = (attempt === 0 ? 300 : 1000) * (1 + random.fraction() * 3);
      let isBroken = false;
      const ended = (machines[target] as Machine).connectionsEnd.then(() => {
        isBroken = true;
        return schedule.sleep(random.fraction() < 0.5 ? 0.5 : random.fraction() * 50);
      });
      await Promise.race([answer.promise.catch(() => undefined), schedule.sleep(patienceMs), ended]);
      if (answered) return answer.promise;
      if (isBroken) connection += 1;
      if (attempt > 400) throw new Error(`${this.name}: ${what} is never answered`);
      // Its address moves to another router only when the one it was sent to was silent for long, or is known to be gone, or hung up.
      const isGone = (machines[target] as Machine).station === null;
      if ((isGone || isBroken || schedule.nowMs - sentMs > SILENCE_MS_MIN) && random.fraction() < this.wander) {
        const next = Math.floor(random.fraction() * machines.length);
        if (next !== target) {
          sentMs = schedule.nowMs;
          connection += 1;
        }
        target = next;
      }
    }
  }

  #transmit<T>(
    machine: Machine,
    what: string,
    invoke: (fileSystem: FileSystem, caller: Caller) => T | Promise<T>,
    caller: Caller,
    answer: PromiseWithResolvers<T>,
    isOpen: () => boolean,
  ): void {
    const { station } = machine;
    if (station === null) return;
    const isThere = (): boolean => machine.station === station;
    this.#lane(machine, 'to').send(() => {
      if (!isThere()) return;
      station.time.enter(() => {
        if (!isThere()) return;
        Promise.resolve()
          .then(() => invoke(station.fileSystem, caller))
          .then(
            (result) => {
              if (isThere() && !station.time.stopped) {
                this.#lane(machine, 'from').send(() => {
                  if (isOpen()) answer.resolve(result);
                });
              }
            },
            (error: unknown) => {
              if (!isThere()) return;
              this.#world.trace(`${this.name}: ${what} at ${machine.name} is a bug: ${String(error)}`);
              answer.reject(error);
            },
          );
      });
    });
  }

  #lane(machine: Machine, direction: string): Lane {
    const key = `${machine.name} ${direction}`;
    let lane = this.#lanes.get(key);
    if (lane === undefined) {
      lane = new Lane(this.#world.schedule, this.#world.random, machine.toClients);
      this.#lanes.set(key, lane);
    }
    return lane;
  }

  #caller(xid: number): Caller {
    const address = `10.0.0.${this.name.length}`;
    const id = `${address}|${this.name}|${xid}`;
    return {
      uid: 0,
      gid: 0,
      gids: [],
      address,
      operationId: () => id,
      writeIdentity: (offsetBytes, countBytes, chunks, into) => {
        let crc = 0;
        for (const chunk of chunks) crc = crc32(chunk, crc);
        const digest = createHash('md5').update(`${id}|${offsetBytes}|${countBytes}|${crc}`).digest();
        for (let word = 0; word < 4; word += 1) into[word] = digest.readUInt32LE(word * 4);
        return crc;
      },
    };
  }
}
