/**
 * The way to one other router: one session at a time, its lanes, and what happens while there is none.
 *
 * - `connecting`: calls wait, at most `connectWaitMs`. `resting`: the last attempt failed, calls are refused at once; the next attempt comes after a delay that
 *   grows, or when Members has news of the router.
 * - A session that loses one connection, hears nothing for `silenceMs`, or whose peer has a new incarnation, is closed with all lanes; calls without an answer
 *   fail with `peer-unavailable`.
 */
import { ApplianceError } from '../core/errors.ts';
import type { Incarnation, RouterId } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock, Random } from '../core/time.ts';
import type { Member, Members, PeerService } from '../object-router/peer-port.ts';
import { VERSION_FIRST, VERSION_LAST } from './hello.ts';
import type { Refusal } from './hello.ts';
import { LaneConnection } from './lane-connection.ts';
import type { PeerCall } from './peer-call.ts';
import type { PeerSelf, PeerTls } from './peer-identity.ts';
import { CONTROL_LANE, DATA_LANE, LANES, SMALL_IO_BYTES_MAX } from './peer-settings.ts';
import type { PeerSettings } from './peer-settings.ts';
import { remoteService } from './remote-service.ts';
import { laneOf } from './request-codec.ts';

/** Silence and age are looked at more often than pings are sent. */
const TICKS_PER_PING = 2;
/** Refusals that somebody must do something about: whoever calls is told `peer-refused`. */
const LASTING: ReadonlySet<Refusal> = new Set(['version', 'vpool', 'certificate']);

export interface PeerLinkComponents {
  readonly members: Members;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly tls: PeerTls | null;
  readonly self: PeerSelf;
  /** Numbers of sessions: each higher than the last. */
  readonly nextSession: () => number;
  readonly heard: () => void;
}

interface Session {
  readonly incarnation: Incarnation;
  readonly lanes: LaneConnection[];
  ready: number;
  cancelTimeout: () => void;
}

export class PeerLink {
  readonly service: PeerService;
  readonly #router: RouterId;
  readonly #components: PeerLinkComponents;
  readonly #settings: PeerSettings;
  #session: Session | null = null;
  #state: 'resting' | 'connecting' | 'connected' = 'resting';
  #failures = 0;
  #addressIndex = 0;
  #problem: string | null = 'not connected yet';
  #isRefused = false;
  #roundTripMs: number | null = null;
  #waiting: { call: PeerCall; cancel: () => void }[] = [];
  #cancelRetry: (() => void) | null = null;
  #cancelTick: (() => void) | null = null;
  #isClosed = false;

  constructor(router: RouterId, components: PeerLinkComponents, settings: PeerSettings) {
    this.#router = router;
    this.#components = components;
    this.#settings = settings;
    this.service = remoteService(components.clock, (call) => this.#call(call));
  }

  get state(): { readonly connected: boolean; readonly roundTripMs: number | null; readonly problem: string | null } {
    const connected = this.#state === 'connected';
    return { connected, roundTripMs: connected ? this.#roundTripMs : null, problem: connected ? null : this.#problem };
  }

  /** Members has news: connect now if there is no session, end one to an incarnation that is gone. */
  look(): void {
    const member = this.#member();
    if (this.#session !== null && member !== null && member.incarnation !== this.#session.incarnation)
      this.#lost(this.#session, 'it has a new incarnation');
    if (this.#session !== null && (member === null || member.dead)) {
      this.#lost(this.#session, 'it is no member any more');
      return;
    }
    if (this.#state === 'resting' && member !== null && !member.dead) this.#connect();
  }

  close(reason: string): void {
    this.#isClosed = true;
    this.#cancelRetry?.();
    if (this.#session !== null) this.#lost(this.#session, reason);
    this.#failWaiting(reason);
  }

  #member(): Member | null {
    return this.#components.members.get(this.#router);
  }

  #call(call: PeerCall): void {
    if (this.#state === 'connected') {
      this.#send(this.#session!, call);
      return;
    }
    // The first call to a router that nobody talked to yet connects.
    if (this.#state === 'resting' && this.#cancelRetry === null && !this.#isClosed) this.#connect();
    if (this.#state !== 'connecting') {
      call.fail(this.#error(this.#problem ?? 'not connected'));
      return;
    }
    const entry = {
      call,
      cancel: this.#components.clock.after(this.#settings.connectWaitMs, () => {
        this.#waiting = this.#waiting.filter((one) => one !== entry);
        call.fail(this.#error(`no connection within ${this.#settings.connectWaitMs} ms`));
      }),
    };
    this.#waiting.push(entry);
  }

  #send(session: Session, call: PeerCall): void {
    const lane = laneOf(call.request.kind);
    const { streams } = session.lanes[lane]!;
    const stream = streams[lane === DATA_LANE && call.chargeBytes > SMALL_IO_BYTES_MAX + 1024 ? 1 : 0]!;
    if (stream.waitingBytes + call.chargeBytes > this.#settings.queueBytesMax && stream.waitingBytes > 0) {
      call.fail(this.#error(`${stream.waitingBytes} bytes of calls wait for it`));
      return;
    }
    stream.call(call);
  }

  #connect(): void {
    this.#cancelRetry?.();
    this.#cancelRetry = null;
    const member = this.#member();
    if (member === null || member.dead) {
      this.#rest(member === null ? 'it is no member' : 'it is dead');
      return;
    }
    const addresses = member.addresses.map(peerAddress).filter((address) => address !== null);
    if (addresses.length === 0) {
      this.#rest('it tells no address for peers');
      return;
    }
    const address = addresses[this.#addressIndex % addresses.length]!;
    this.#addressIndex += 1;
    const { self, clock, tls, heard } = this.#components;
    this.#state = 'connecting';
    const number = this.#components.nextSession();
    const session: Session = { incarnation: member.incarnation, lanes: [], ready: 0, cancelTimeout: () => {} };
    this.#session = session;
    session.cancelTimeout = clock.after(this.#settings.connectTimeoutMs, () =>
      this.#lost(session, `no hello from ${address.host} port ${address.port} within ${this.#settings.connectTimeoutMs} ms`),
    );
    const hello = {
      versionFirst: VERSION_FIRST,
      versionLast: VERSION_LAST,
      vpoolUuid: self.vpoolUuid,
      router: self.router,
      incarnation: self.incarnation,
      toRouter: this.#router,
      toIncarnation: member.incarnation,
      session: number,
    };
    LANES.forEach((_shape, lane) => {
      if (this.#session !== session) return;
      session.lanes.push(
        new LaneConnection(
          {
            clock,
            settings: this.#settings,
            tls,
            heard,
            ready: () => this.#ready(session),
            refused: (refusal, message) => this.#lost(session, message, LASTING.has(refusal)),
            ponged: (roundTripMs) => {
              if (lane === CONTROL_LANE) this.#roundTripMs = roundTripMs;
            },
            lost: (reason) => this.#lost(session, reason),
          },
          address,
          this.#router,
          { ...hello, lane },
        ),
      );
    });
  }

  #ready(session: Session): void {
    if (this.#session !== session) return;
    session.ready += 1;
    if (session.ready < LANES.length) return;
    session.cancelTimeout();
    this.#state = 'connected';
    this.#failures = 0;
    this.#problem = null;
    this.#components.logger.info({ router: this.#router }, 'connected to a peer');
    this.#tick(session, 0);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { call, cancel } of waiting) {
      cancel();
      this.#send(session, call);
    }
  }

  #tick(session: Session, tick: number): void {
    for (const lane of session.lanes) {
      if (lane.silentMs > this.#settings.silenceMs) {
        this.#lost(session, `it was silent for ${Math.round(lane.silentMs)} ms`);
        return;
      }
      if (tick % TICKS_PER_PING === 0) lane.streams[0]!.ping();
      for (const stream of lane.streams) stream.expire(this.#components.clock.monotonicMs());
    }
    this.#cancelTick = this.#components.clock.after(this.#settings.pingIntervalMs / TICKS_PER_PING, () => this.#tick(session, tick + 1));
  }

  #lost(session: Session, reason: string, isRefusal = false): void {
    if (this.#session !== session) return;
    this.#session = null;
    session.cancelTimeout();
    this.#cancelTick?.();
    this.#cancelTick = null;
    const level = this.#state === 'connected' ? 'warn' : 'debug';
    this.#components.logger[level]({ router: this.#router, reason }, 'no connection to a peer');
    for (const lane of session.lanes) lane.close(`router ${this.#router}: ${reason}`);
    this.#rest(reason, isRefusal);
  }

  #rest(problem: string, isRefusal = false): void {
    this.#state = 'resting';
    this.#problem = problem;
    this.#isRefused = isRefusal;
    this.#failWaiting(problem);
    const member = this.#member();
    // `look` is called when it comes back.
    if (this.#isClosed || member === null || member.dead) return;
    const { backoffMsMin, backoffMsMax } = this.#settings;
    const delayMs = Math.min(backoffMsMin * 2 ** Math.min(this.#failures, 16), backoffMsMax) * (0.5 + this.#components.random.fraction() / 2);
    this.#failures += 1;
    this.#cancelRetry?.();
    this.#cancelRetry = this.#components.clock.after(delayMs, () => this.#connect());
  }

  #error(problem: string): ApplianceError {
    return this.#isRefused
      ? new ApplianceError('peer-refused', `router ${this.#router} and this one do not fit: ${problem}`, { retryable: true })
      : new ApplianceError('peer-unavailable', `router ${this.#router} cannot be reached: ${problem}`, { retryable: true });
  }

  #failWaiting(problem: string): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { call, cancel } of waiting) {
      cancel();
      call.fail(this.#error(problem));
    }
  }
}

/** Host and port of a `peer://host:port` address; null for any other. */
function peerAddress(address: string): { host: string; port: number } | null {
  if (!address.startsWith('peer://') || !URL.canParse(address)) return null;
  const url = new URL(address);
  const port = Number(url.port);
  if (url.hostname === '' || port === 0) return null;
  return { host: url.hostname.replace(/^\[|\]$/g, ''), port };
}
