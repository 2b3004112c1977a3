/** What an operator asks of the cluster, answered by one of its routers (composition of cluster-port.ts). */
import type { Inode } from '../registry/inode.ts';
import type { ClusterRegistry, OwnerRecord, RouterRecord } from '../registry/ports.ts';
import type {
  ClusterControl,
  ClusterStatus,
  DrainReport,
  MoveReport,
  MovesReport,
  MoveStarted,
  ObjectReference,
  Refusal,
  RouterForgotten,
  RouterReport,
  TakeoverOutcome,
  TakeoverPlan,
  VolumePage,
  VolumeQuery,
  VolumeReport,
} from './cluster-port.ts';
import { ApplianceError, isEnvironmentError } from './core/errors.ts';
import type { FileId, RouterId, Term } from './core/ids.ts';
import type { Logger } from './core/logger.ts';
import type { MoveRecord } from './object-router/moves/move-history.ts';
import type { MoveHost } from './object-router/moves/move-host.ts';
import type { Moves } from './object-router/moves/moves.ts';
import type { TakeoverPlan as TakeoverSight } from './object-router/moves/takeover.ts';
import { objectPaths } from './object-router/object-paths.ts';
import type { Member, Members, PeerNetwork } from './object-router/peer-port.ts';

/** A router that was not heard of for longer is said to be silent: it renews its lease every second. */
const SILENT_MS = 3_000;
/** Names that are looked at to find the paths of a report's objects. */
const ENTRIES_MAX = 20_000;
const PAGE = 500;
/** Objects of a router that are counted for its report. */
const COUNTED_MAX = 20_000;
/** Inodes that are asked for at a time. */
const INODES_AT_ONCE = 32;
/** Objects of a router that a refusal names. */
const NAMED_OWNED_MAX = 10;
/** Objects whose path was found once, for reports of their moves. */
const NAMED_MAX = 1_024;

export interface ClusterControlComponents {
  readonly registry: ClusterRegistry;
  readonly members: Members;
  readonly network: PeerNetwork;
  readonly moves: Moves;
  readonly host: Pick<MoveHost, 'served' | 'all'>;
  readonly logger: Logger;
  readonly self: RouterId;
  /** What does not change while the router runs, and what is asked each time. */
  readonly about: {
    /** Without secrets. */
    readonly registry: string;
    readonly peerAddress: string;
    readonly encrypted: boolean;
    readonly certificateEndsAtMs: number | null;
    generation(): number;
    /** Objects of this router that wait for something before they are served. */
    recovering(): number;
    /** Of the registry: in one step with the look whether it may be. */
    forgetRouter(router: RouterId): Promise<'forgotten' | 'alive' | 'owner'>;
  };
}

export class RouterClusterControl implements ClusterControl {
  readonly #components: ClusterControlComponents;
  readonly #named = new Map<FileId, string>();
  #naming: Promise<void> = Promise.resolve();

  constructor(components: ClusterControlComponents) {
    this.#components = components;
    components.moves.history.onAgreed(({ fileid }) => this.#name(fileid));
  }

  /** Looks for the path of an object that moves: reports of moves must not wait for it. One at a time. */
  #name(fileid: FileId): void {
    if (this.#named.has(fileid)) return;
    this.#naming = this.#naming.then(async () => {
      if (this.#named.has(fileid)) return;
      try {
        const inode = await this.#components.registry.namespace.inode(fileid, null);
        const uuid = inode?.uuid ?? null;
        const path = uuid === null ? undefined : (await this.#paths([uuid])).get(uuid);
        if (path !== undefined) this.#remember(fileid, path);
      } catch (error) {
        if (!isEnvironmentError(error)) throw error;
        this.#components.logger.debug({ err: error, fileid }, 'the path of an object that moves was not found');
      }
    });
  }

  #remember(fileid: FileId, path: string): void {
    this.#named.delete(fileid);
    this.#named.set(fileid, path);
    const [oldest] = this.#named.keys();
    if (this.#named.size > NAMED_MAX && oldest !== undefined) this.#named.delete(oldest);
  }

  #moveReport(move: MoveRecord): MoveReport {
    return { ...reportOf(move), path: this.#named.get(move.fileid) ?? null };
  }

  status(): ClusterStatus {
    const { registry, members, moves, host, about, self } = this.#components;
    const owned = { clean: 0, unprotected: 0, protected: 0 };
    for (const { driven } of host.all()) owned[driven.isClean ? 'clean' : 'unprotected'] += 1;
    return {
      registry: about.registry,
      registryProblem: registry.health(),
      generation: about.generation(),
      leaseLeftMs: registry.lease.leftMs,
      peerAddress: about.peerAddress,
      encrypted: about.encrypted,
      certificateEndsAtMs: about.certificateEndsAtMs,
      routers: members.list().map((member) => ({
        id: member.id,
        self: member.id === self,
        state: this.#stateOf(member),
        peer: addressOf(member.addresses, 'peer'),
        silentMs: member.silentMs,
        connection: this.#connectionTo(member.id),
      })),
      owned,
      recovering: about.recovering(),
      movesRunning: moves.history.running().length,
      drain: this.drainReport(),
    };
  }

  async routers(): Promise<readonly RouterReport[]> {
    const { registry, members, self } = this.#components;
    const records = await registry.membership.routers();
    return await Promise.all(
      records.map(async (record): Promise<RouterReport> => {
        const member = members.get(record.id) ?? memberOf(record);
        return {
          id: record.id,
          incarnation: record.incarnation,
          self: record.id === self,
          state: record.dead ? 'dead' : this.#stateOf(member),
          version: record.version,
          nfs: addressOf(record.addresses, 'nfs'),
          peer: addressOf(record.addresses, 'peer'),
          admin: addressOf(record.addresses, 'http'),
          silentMs: member.silentMs,
          connection: this.#connectionTo(record.id),
          ...(await this.#countOf(record.id)),
        };
      }),
    );
  }

  #stateOf(member: Member): RouterReport['state'] {
    const { self, members, moves } = this.#components;
    if (member.id === self) {
      const { phase } = moves.drainState;
      if (phase !== 'none') return phase === 'drained' ? 'drained' : 'draining';
      return 'running';
    }
    if (member.dead || members.isDead(member.id, member.incarnation)) return 'dead';
    return member.silentMs > SILENT_MS ? 'silent' : 'running';
  }

  #connectionTo(router: RouterId): RouterReport['connection'] {
    return router === this.#components.self ? null : this.#components.network.state(router);
  }

  async #countOf(router: RouterId): Promise<{ readonly objects: number | null; readonly recovering: number | null }> {
    let objects = 0;
    let recovering = 0;
    let after = 0 as FileId;
    for (;;) {
      const page = await this.#components.registry.ownership.ownedBy(router, after, PAGE);
      objects += page.length;
      for (const owner of page) if (owner.state.kind !== 'running') recovering += 1;
      if (page.length < PAGE) return { objects, recovering };
      if (objects >= COUNTED_MAX) return { objects: null, recovering: null };
      after = page.at(-1)?.fileid ?? after;
    }
  }

  async volumes(query: VolumeQuery): Promise<VolumePage> {
    const { registry } = this.#components;
    const routers = query.router === null ? (await registry.membership.routers()).map(({ id }) => id).sort() : [query.router];
    const from = query.after === null ? null : cursorOf(query.after);
    const owners: OwnerRecord[] = [];
    let next: string | null = null;
    for (const router of routers) {
      if (from !== null && router < from.router) continue;
      let after = from !== null && router === from.router ? from.fileid : (0 as FileId);
      while (next === null) {
        const wanted = Math.min(PAGE, query.limit - owners.length);
        const page = await registry.ownership.ownedBy(router, after, wanted);
        owners.push(...page);
        after = page.at(-1)?.fileid ?? after;
        if (owners.length >= query.limit) next = `${router}.${after}`;
        else if (page.length < wanted) break;
      }
      if (next !== null) break;
    }
    return { volumes: await this.#reports(owners), next };
  }

  async #reports(owners: readonly OwnerRecord[]): Promise<VolumeReport[]> {
    const { registry } = this.#components;
    const inodes: (Inode | null)[] = [];
    for (let at = 0; at < owners.length; at += INODES_AT_ONCE) {
      const some = owners.slice(at, at + INODES_AT_ONCE);
      inodes.push(...(await Promise.all(some.map(({ fileid }) => registry.namespace.inode(fileid, null)))));
    }
    const paths = await this.#paths(owners.map(({ uuid }) => uuid));
    return owners.flatMap((owner, index) => {
      const inode = inodes[index] ?? null;
      // A tombstone.
      return inode === null ? [] : [this.#report(owner, inode, paths.get(owner.uuid) ?? null)];
    });
  }

  #paths(uuids: readonly string[]): Promise<Map<string, string>> {
    return objectPaths(this.#components.registry.namespace, new Set(uuids), ENTRIES_MAX);
  }

  #report(owner: OwnerRecord, inode: Inode, path: string | null): VolumeReport {
    const { self, moves, host } = this.#components;
    const served = host.served(owner.fileid);
    return {
      fileid: owner.fileid,
      path,
      class: inode.class === 'volume' ? 'volume' : 'file',
      sizeBytes: served?.driven.attributes().sizeBytes ?? inode.sizeBytes,
      router: owner.router,
      state: owner.state.kind,
      reason: owner.state.kind === 'running' ? null : owner.state.reason,
      protection: owner.protection.kind,
      moving: owner.moving === null ? null : { from: owner.moving.from, to: owner.moving.to },
      pinned: owner.router === self ? moves.pins.has(owner.fileid) : null,
      term: textOfTerm(owner.term),
    };
  }

  async volume(object: ObjectReference): Promise<VolumeReport | Refusal> {
    const found = await this.#find(object);
    return 'kind' in found ? found : this.#report(found.owner, found.inode, found.path);
  }

  async #find(object: ObjectReference): Promise<{ owner: OwnerRecord; inode: Inode; path: string | null } | Refusal> {
    const { registry } = this.#components;
    let inode: Inode | null;
    let path: string | null = null;
    if (object.kind === 'fileid') inode = await registry.namespace.inode(object.fileid, null);
    else {
      path = object.path;
      inode = await this.#walk(object.path);
    }
    const name = object.kind === 'path' ? object.path : `object ${object.fileid}`;
    if (inode === null) return refusal('no-such-object', `there is no ${name}`);
    const owner = inode.class === 'file' || inode.class === 'volume' ? await registry.ownership.owner(inode.fileid) : null;
    if (owner === null) {
      return refusal(
        'no-owner',
        `${name} has no owner: it is a directory, a file that is small enough to live in the registry, or nobody has opened it yet`,
      );
    }
    path ??= (await this.#paths([owner.uuid])).get(owner.uuid) ?? null;
    if (path !== null) this.#remember(inode.fileid, path);
    return { owner, inode, path };
  }

  async #walk(path: string): Promise<Inode | null> {
    const { namespace } = this.#components.registry;
    let inode = await namespace.inode(namespace.root, null);
    for (const name of path.split('/')) {
      if (name === '') continue;
      if (inode === null || inode.type !== 'directory' || name === '.' || name === '..' || Buffer.byteLength(name) > 255) return null;
      const found = await namespace.lookup(inode.fileid, Buffer.from(name));
      inode = found.kind === 'found' ? found.inode : null;
    }
    return inode;
  }

  moves(): MovesReport {
    const { history } = this.#components.moves;
    return { running: history.running().map((move) => this.#moveReport(move)), history: history.ended().map((move) => this.#moveReport(move)) };
  }

  async move(object: ObjectReference, to: RouterId): Promise<MoveStarted> {
    const { members, moves, network, self, logger } = this.#components;
    const found = await this.#find(object);
    if ('kind' in found) return found;
    const { owner, inode } = found;
    const { fileid } = owner;
    if (owner.router === to) return { kind: 'already-there' };
    const target = members.get(to);
    if (target === null) return refusal('no-such-router', `there is no router ${to} in the cluster`);
    if (target.dead || members.isDead(to, target.incarnation)) return refusal('router-unavailable', `router ${to} is dead`, true);
    if (members.isDead(owner.router, owner.incarnation)) {
      return refusal(
        'owner-unavailable',
        `router ${owner.router}, which owns it, is dead: it is taken over when it is used, or see "volume takeover"`,
      );
    }
    const order = { fileid, inodeGeneration: inode.inodeGeneration, term: owner.term };
    if (to === self) {
      if (!moves.willReceive) return this.#notNow(moves.drainState.phase !== 'none');
      moves.receive({ ...order, owner: owner.router, reason: 'operator' }).catch((error: unknown) => {
        if (!isEnvironmentError(error)) throw error;
        logger.error({ err: error, fileid }, 'a move failed');
      });
      const move = moves.history.running().find((one) => one.fileid === fileid);
      return { kind: 'started', move: move === undefined ? null : this.#moveReport(move) };
    }
    try {
      if (!(await network.peer(to).moveOffer(order, owner.router, 'operator'))) {
        return refusal('busy', `router ${to} takes nothing now: it is being drained, or it receives as much as it may at a time`, true);
      }
    } catch (error) {
      if (!isEnvironmentError(error)) throw error;
      return refusal('router-unavailable', `router ${to} does not answer: ${error.message}`, true);
    }
    const move = moves.history.running().find((one) => one.fileid === fileid);
    return { kind: 'started', move: move === undefined ? null : this.#moveReport(move) };
  }

  #notNow(isDraining: boolean): Refusal {
    return isDraining
      ? refusal('draining', 'this router is being drained: it receives nothing until that is ended (router undrain)')
      : refusal('busy', 'this router receives as many objects as it may at a time (cluster.movesMax)', true);
  }

  cancelMove(id: string): Promise<boolean> {
    return this.#components.moves.cancel(id);
  }

  async drain(): Promise<DrainReport | Refusal> {
    const { members, moves, self } = this.#components;
    const others = members.list().filter((member) => member.id !== self && !member.dead && !members.isDead(member.id, member.incarnation));
    if (others.length === 0) return refusal('router-unavailable', 'there is no other living router to move anything to', true);
    moves.drain();
    return this.drainReport();
  }

  async undrain(): Promise<DrainReport> {
    await this.#components.moves.undrain();
    return this.drainReport();
  }

  drainReport(): DrainReport {
    const { moves } = this.#components;
    const { startedAtMs, failed, ...state } = moves.drainState;
    let behindBytes = 0;
    for (const move of moves.history.running()) if (move.role === 'giver') behindBytes += move.behindBytes;
    return {
      ...state,
      startedAt: startedAtMs === null ? null : isoOf(startedAtMs),
      behindBytes,
      failed: failed.map(({ fileid, reason }) => ({ fileid, path: this.#named.get(fileid) ?? null, reason })),
    };
  }

  async forgetRouter(router: RouterId): Promise<RouterForgotten> {
    const { about, logger } = this.#components;
    if (!(await this.routers()).some(({ id }) => id === router)) return refusal('no-such-router', `there is no router ${router} in the cluster`);
    switch (await about.forgetRouter(router)) {
      case 'alive':
        return refusal('router-alive', `router ${router} is not dead: drain it, stop it, and wait until "router list" says that it is dead`);
      case 'owner':
        return refusal('owns-objects', await this.#ownsText(router));
      case 'forgotten':
        logger.warn({ router }, 'a router was taken out of the list of members');
        return { kind: 'forgotten', router };
    }
  }

  async #ownsText(router: RouterId): Promise<string> {
    const { registry } = this.#components;
    const owned = await registry.ownership.ownedBy(router, 0 as FileId, NAMED_OWNED_MAX + 1);
    const inodes = await Promise.all(owned.map(({ fileid }) => registry.namespace.inode(fileid, null)));
    const paths = await this.#paths(owned.map(({ uuid }) => uuid));
    const names = owned.slice(0, NAMED_OWNED_MAX).map(({ fileid, uuid, protection }, index) => {
      if (inodes[index] === null) return `object ${fileid} (removed; it goes when vpool.graceTimeMs is over)`;
      return `${paths.get(uuid) ?? `object ${fileid}`} (${protection.kind})`;
    });
    if (owned.length > NAMED_OWNED_MAX) names.push('and more, see "volume list --router"');
    return `router ${router} still owns ${names.join(', ')}: use each here, or "volume takeover"; what is clean needs no --force`;
  }

  async pin(object: ObjectReference, pinned: boolean): Promise<VolumeReport | Refusal> {
    const { moves, self, members } = this.#components;
    const found = await this.#find(object);
    if ('kind' in found) return found;
    const { owner } = found;
    if (owner.router !== self) {
      const admin = addressOf(members.get(owner.router)?.addresses ?? [], 'http');
      return refusal(
        'owner-unavailable',
        `router ${owner.router} owns it, and keeps its pins itself: ask that one${admin === null ? '' : ` (its admin address is ${admin})`}`,
      );
    }
    await moves.pins.set(owner.fileid, pinned);
    return this.#report(owner, found.inode, found.path);
  }

  async takeoverPlan(object: ObjectReference): Promise<TakeoverPlan | Refusal> {
    const sight = await this.#sight(object);
    if ('code' in sight) return sight;
    const { plan, report } = sight;
    return {
      kind: 'plan',
      volume: report,
      ownerSilentMs: plan.ownerSilentMs,
      ownerDead: plan.ownerDead,
      needsForce: plan.needsForce,
      keptSequence: plan.keptSequence,
      givenUp: lossOf(plan),
    };
  }

  async takeover(object: ObjectReference, term: string, force: boolean): Promise<TakeoverOutcome> {
    const sight = await this.#sight(object);
    if ('code' in sight) return sight;
    const { plan } = sight;
    if (textOfTerm(plan.owner.term) !== term) return changed();
    const { takeover } = this.#components.moves;
    const end = await takeover.take(plan.owner, force ? lossOf(plan).join(' ') : null);
    switch (end.kind) {
      case 'gone':
        return refusal('no-such-object', 'it was removed meanwhile');
      case 'changed':
        return changed();
      case 'owner-alive':
        return refusal('owner-alive', `router ${plan.owner.router} is back`);
      case 'not-clean':
        return refusal(
          'not-clean',
          'its router has writes that are not on the backend: wait for that router, or take it over by force and give them up',
        );
      case 'taken': {
        const volume = await this.volume(object);
        return 'kind' in volume ? volume : { kind: 'taken', volume };
      }
    }
  }

  async #sight(object: ObjectReference): Promise<{ plan: TakeoverSight; report: VolumeReport } | Refusal> {
    const found = await this.#find(object);
    if ('kind' in found) return found;
    const look = await this.#components.moves.takeover.look(found.owner.fileid);
    switch (look.kind) {
      case 'gone':
        return refusal('no-such-object', 'it was removed');
      case 'no-owner':
        return refusal('no-owner', 'it has no owner');
      case 'owner-alive': {
        const silent = look.silentMs === null ? '' : `; its lease was renewed ${Math.round(look.silentMs)} ms ago`;
        return refusal('owner-alive', `router ${look.owner.router} owns it and is not dead${silent}: use "volume move"`);
      }
      case 'plan':
        return { plan: look.plan, report: this.#report(look.plan.owner, look.plan.inode, found.path) };
    }
  }
}

function lossOf(plan: TakeoverSight): string[] {
  if (!plan.needsForce) return [];
  const { owner, inode, knownLostRecords } = plan;
  const { root, router, protection } = owner;
  const sentences = [
    `Everything that was acknowledged after record ${root.uploadedSequence} of the object's log (segment ${root.uploadedSegment}), the last that is on the backend.`,
    knownLostRecords > 0
      ? `${knownLostRecords} records of that are known for certain; router ${router} may have written more.`
      : `How much that is only the disk of router ${router} says.`,
    `The registry last heard that the object had ${inode.sizeBytes} bytes and was changed at ${isoOf(inode.mtime.seconds * 1000 + inode.mtime.nanoseconds / 1e6)}; ` +
      'its router says so every few seconds while the object is written.',
  ];
  if (protection.kind === 'protected') sentences.push(`Copies at ${protection.replicas.join(', ')} are not used.`);
  sentences.push(
    `If router ${router} comes back, it puts its part of the object's log aside (orphans/ in its data directory), where nothing reads or deletes it.`,
  );
  return sentences;
}

function reportOf(move: MoveRecord): Omit<MoveReport, 'path'> {
  return {
    id: move.id,
    fileid: move.fileid,
    from: move.from,
    to: move.to,
    reason: move.reason,
    phase: move.phase,
    startedAt: isoOf(move.startedAtMs),
    endedAt: move.endedAtMs === null ? null : isoOf(move.endedAtMs),
    copiedBytes: move.copiedBytes,
    behindBytes: move.behindBytes,
    heldMs: move.heldMs,
    stepsMs: { ...move.stepsMs },
    problem: move.problem,
  };
}

function refusal(code: Refusal['code'], message: string, retryable = false): Refusal {
  return { kind: 'refused', code, message, retryable };
}

function changed(): Refusal {
  return refusal('changed', 'it is not as it was when you looked: look again', true);
}

function memberOf({ id, incarnation, addresses, dead }: RouterRecord): Member {
  return { id, incarnation, addresses, dead, silentMs: 0 };
}

/** `host:port` of the first URL of that scheme. */
function addressOf(addresses: readonly string[], scheme: string): string | null {
  const url = addresses.find((address) => address.startsWith(`${scheme}://`));
  return url === undefined ? null : url.slice(scheme.length + 3);
}

function textOfTerm({ generation, counter, nonce }: Term): string {
  return `${generation}.${counter}.${nonce}`;
}

function cursorOf(text: string): { readonly router: RouterId; readonly fileid: FileId } {
  const match = /^([0-9a-f]{32})\.(\d{1,16})$/.exec(text);
  if (match === null) throw new ApplianceError('bad-cursor', `"${text}" is not the "next" of a page`);
  return { router: match[1] as RouterId, fileid: Number(match[2]) as FileId };
}

function isoOf(wallMs: number): string {
  return new Date(wallMs).toISOString();
}
