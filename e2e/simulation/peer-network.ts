/**
 * The network between the routers of a simulated cluster: calls of PeerService that take time, are lost before or after they were executed, are executed
 * after their caller gave them up, and break off with a process. Nothing is shared between the two sides.
 */
import { ApplianceError } from '../../server/core/errors.ts';
import type { RouterId } from '../../server/core/ids.ts';
import type { MaybePromise } from '../../server/core/maybe-promise.ts';
import type { Random } from '../../server/core/time.ts';
import type { MovePart, PeerNetwork, PeerService } from '../../server/object-router/peer-port.ts';
import type { ProcessTime, Schedule } from './schedule.ts';
import { Lane, newWay, type Way } from './ways.ts';

/** How long a caller waits for an answer beyond what the call itself may wait. */
const PATIENCE_MS = 3000;
/** How soon a caller hears that the process at the other end is gone. */
const RESET_MS = 2;

interface Station {
  readonly time: ProcessTime;
  readonly service: PeerService;
}

export class SimulatedPeers {
  readonly #schedule: Schedule;
  readonly #random: Random;
  readonly #stations = new Map<RouterId, Station>();
  readonly #ways = new Map<string, Way>();
  readonly #lanes = new Map<string, Lane>();
  /** Calls that were answered, by operation id and the router that asked: the asker did not execute them itself. */
  readonly answered = new Set<string>();

  constructor(schedule: Schedule, random: Random) {
    this.#schedule = schedule;
    this.#random = random;
  }

  /** The way between two routers, to be cut and mended. */
  way(a: RouterId, b: RouterId): Way {
    const key = a < b ? `${a} ${b}` : `${b} ${a}`;
    let way = this.#ways.get(key);
    if (way === undefined) {
      way = newWay(0.05, 0.4);
      this.#ways.set(key, way);
    }
    return way;
  }

  /** A router listens from now on. What was sent to its former life is lost. */
  attach(router: RouterId, time: ProcessTime, service: PeerService): void {
    this.#stations.set(router, { time, service });
  }

  /** It does so no more: calls on their way to it, and answers of it, are lost. */
  detach(router: RouterId): void {
    this.#stations.delete(router);
  }

  #lane(from: RouterId, to: RouterId): Lane {
    const key = `${from} ${to}`;
    let lane = this.#lanes.get(key);
    if (lane === undefined) {
      lane = new Lane(this.#schedule, this.#random, this.way(from, to));
      this.#lanes.set(key, lane);
    }
    return lane;
  }

  /** The network as one life of a router sees it. */
  network(self: RouterId, time: ProcessTime): PeerNetwork {
    const peers = new Map<RouterId, PeerService>();
    return {
      peer: (router) => {
        let peer = peers.get(router);
        if (peer === undefined) {
          peer = withoutPromises(this.#peer(self, time, router));
          peers.set(router, peer);
        }
        return peer;
      },
      state: (router) => {
        const connected = this.#stations.has(router) && !this.way(self, router).cut;
        return { connected, roundTripMs: connected ? 0.5 : null, problem: connected ? null : 'no way' };
      },
    };
  }

  #peer(self: RouterId, time: ProcessTime, to: RouterId): PeerService {
    const call = <T>(what: string, execute: (service: PeerService) => MaybePromise<T>, waitMs = 0): Promise<T> =>
      this.#call(self, time, to, what, execute, waitMs);
    const done = <T extends { readonly kind: string }>(operationId: string, answer: Promise<T>): Promise<T> =>
      answer.then((result) => {
        if (result.kind === 'done') this.answered.add(`${self} ${operationId}`);
        return result;
      });
    return {
      getattr: (target) => call('getattr', (service) => service.getattr(target)),
      attributesOf: (targets) => call('attributesOf', (service) => service.attributesOf(targets)),
      read: (target, caller, offsetBytes, into) => {
        const bytes = Buffer.alloc(into.length, 0xdd);
        const answer = call('read', (service) => service.read(target, caller, offsetBytes, bytes));
        return done(
          caller.operationId,
          answer.then((result) => {
            if (result.kind === 'done' && result.result.status === 0) bytes.copy(into, 0, 0, result.result.bytesRead);
            return result;
          }),
        );
      },
      write: (target, caller, offsetBytes, countBytes, chunks, stability) => {
        const sent = chunks.map((chunk) => Buffer.from(chunk));
        // Each execution has its own copy: chunks belong to who executes.
        const copies = (): Buffer[] => sent.map((chunk) => Buffer.from(chunk));
        return done(
          caller.operationId,
          call('write', (service) => service.write(target, caller, offsetBytes, countBytes, copies(), stability)),
        );
      },
      commit: (target, caller) =>
        done(
          caller.operationId,
          call('commit', (service) => service.commit(target, caller)),
        ),
      setattr: (target, caller, changes, guardCtime) =>
        done(
          caller.operationId,
          call('setattr', (service) => service.setattr(target, caller, changes, guardCtime)),
        ),
      inodeChanged: (fileid) => call('inodeChanged', (service) => service.inodeChanged(fileid)),
      moveAsk: (target, from, nonce, reason) => call('moveAsk', (service) => service.moveAsk(target, from, nonce, reason), 2000),
      moveFetch: (fileid, attempt, from, bytesMax, waitMs) =>
        call(
          'moveFetch',
          async (service): Promise<MovePart | null> => {
            const pieces = await service.moveFetch(fileid, attempt, from, bytesMax, waitMs);
            return pieces === null ? null : copyOf(pieces);
          },
          waitMs,
        ),
      moveFreeze: (fileid, attempt, from) =>
        call('moveFreeze', async (service) => {
          const frozen = await service.moveFreeze(fileid, attempt, from);
          return frozen === null ? null : { ...frozen, rest: copyOf(frozen.rest) };
        }),
      moveConfirm: (fileid, attempt, lastSequence) => call('moveConfirm', (service) => service.moveConfirm(fileid, attempt, lastSequence)),
      moveAbort: (fileid, attempt, reason) => call('moveAbort', (service) => service.moveAbort(fileid, attempt, reason)),
      moveOffer: (target, from, reason) => call('moveOffer', (service) => service.moveOffer(target, from, reason)),
    };
  }

  #call<T>(
    self: RouterId,
    time: ProcessTime,
    to: RouterId,
    what: string,
    execute: (service: PeerService) => MaybePromise<T>,
    waitMs: number,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      // Killed in the middle of a turn: the rest of it has no effect.
      if (!time.alive) return;
      const unavailable = (why: string): void =>
        reject(new ApplianceError('peer-unavailable', `${what} to ${to.slice(0, 4)}: ${why}`, { retryable: true }));
      const cancel = time.after(PATIENCE_MS + waitMs, () => unavailable('no answer'));
      const hear = (deliver: () => void): void =>
        time.enter(() => {
          cancel();
          deliver();
        });
      const station = this.#stations.get(to);
      if (station === undefined) {
        this.#schedule.after(RESET_MS, () => hear(() => unavailable('nobody listens there')));
        return;
      }
      const back = this.#lane(to, self);
      const isThere = (): boolean => this.#stations.get(to) === station && station.time.alive;
      this.#lane(self, to).send(() => {
        if (!isThere()) {
          this.#schedule.after(RESET_MS, () => hear(() => unavailable('it was reset')));
          return;
        }
        station.time.enter(() => {
          // Read from a socket that was closed meanwhile: never seen.
          if (!isThere()) return;
          Promise.resolve()
            .then(() => execute(station.service))
            .then(
              (result) => {
                if (isThere() && !station.time.stopped) back.send(() => hear(() => resolve(result)));
              },
              (error: unknown) => {
                if (isThere() && !station.time.stopped) back.send(() => hear(() => reject(error)));
              },
            );
        });
      });
    });
  }
}

/** Bytes that are the receiver's own, as from a wire. */
function copyOf(part: MovePart): MovePart {
  return {
    ...part,
    pieces: part.pieces.map((piece) => ({ ...piece, bytes: Buffer.from(piece.bytes) })),
    calls: { ...part.calls, bytes: Buffer.from(part.calls.bytes) },
  };
}

/** The same, for callers who want to be told (PeerService.startRead). */
function withoutPromises(peer: PeerService): PeerService {
  return {
    ...peer,
    startRead(target, caller, offsetBytes, into, end): void {
      Promise.resolve(peer.read(target, caller, offsetBytes, into)).then(
        (answer) => end.answered(answer),
        (error: Error) => end.failed(error),
      );
    },
    startWrite(target, caller, offsetBytes, countBytes, chunks, stability, _payloadCrc, end): void {
      Promise.resolve(peer.write(target, caller, offsetBytes, countBytes, chunks, stability)).then(
        (answer) => end.answered(answer),
        (error: Error) => end.failed(error),
      );
    },
  };
}
