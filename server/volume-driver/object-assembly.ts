/** Puts the parts of an open object together: after a recovery, and when an object arrives from another router. Nothing here waits or asks anybody. */
import type { Inode } from '../../registry/inode.ts';
import type { OwnerRecord } from '../../registry/ports.ts';
import type { Incarnation, Term } from '../core/ids.ts';
import { ObjectLog } from '../object-log/object-log.ts';
import type { BlockObjectState } from './applied-state.ts';
import type { BackendReads } from './backend-reads.ts';
import { BlockObject } from './block-object.ts';
import { BlockReader } from './block-reader.ts';
import { OpenObject } from './driven-object.ts';
import type { ArrivedSegment, UnsealedSegment } from './driven-object.ts';
import { ObjectKeeper } from './object-keeper.ts';
import type { Loaded } from './object-loader.ts';
import { ObjectRecords } from './object-records.ts';
import type { ReadAheadBudget } from './read-ahead-budget.ts';
import { ReadAhead } from './read-ahead.ts';
import type { ReadAheadStatistics } from './read-ahead.ts';
import type { SegmentRecall } from './segment-recall.ts';
import type { StorageNames } from './storage-names.ts';
import type { VolumeDriverComponents, VolumeDriverSettings } from './volume-driver.ts';
import type { WriteBack } from './write-back.ts';

export interface AssemblyComponents extends VolumeDriverComponents {
  readonly reads: BackendReads;
  readonly recall: SegmentRecall;
  readonly readAheadBudget: ReadAheadBudget;
  readonly readAheadStatistics: ReadAheadStatistics;
}

/** What is known of an object before it is open. */
export interface ObjectBasis {
  readonly inode: Inode;
  readonly names: StorageNames;
  /** Term in which it is, or will be, owned. */
  readonly term: Term;
  /** Checkpoint, and the map that everything behind it was applied to. */
  readonly loaded: Loaded;
  readonly reader: BlockReader;
  readonly writeBack: WriteBack | null;
}

/** The moment from which it is open. */
export interface ObjectBeginning {
  readonly owner: OwnerRecord;
  readonly records: ObjectRecords;
  readonly verifier: Uint8Array;
  readonly state: BlockObjectState;
  /** Of the log so far. */
  readonly lastSegment: number;
  readonly lastSequence: number;
  /** Segment number -> row of the table. */
  readonly rows: Iterable<readonly [number, number]>;
  /** The term's claim is on the backend. */
  readonly claimed: boolean;
  /** As KeeperStart has them. */
  readonly loggedBytes: number;
  readonly moved: boolean;
  /** Segments to be sealed in the background. */
  readonly unsealed: readonly UnsealedSegment[];
  /** Segments that arrived from another router. */
  readonly arrived: readonly ArrivedSegment[];
}

export class ObjectAssembly {
  readonly #components: AssemblyComponents;
  readonly #settings: VolumeDriverSettings;
  readonly #incarnation: Incarnation;

  constructor(components: AssemblyComponents, settings: VolumeDriverSettings, incarnation: Incarnation) {
    this.#components = components;
    this.#settings = settings;
    this.#incarnation = incarnation;
  }

  /** What reads and writes back blocks of an object whose map is `loaded`. */
  basis(inode: Inode, names: StorageNames, term: Term, loaded: Loaded): ObjectBasis {
    const reader = new BlockReader({ ...this.#components, names });
    const make = this.#components.writeBack[inode.class === 'volume' ? 'volume' : 'file'];
    const { writer } = this.#components;
    const { map, table, uuid } = loaded;
    const writeBack =
      make === null
        ? null
        : make({
            uuid,
            term,
            map,
            table,
            reader,
            store: (name, chunks) => writer.put(names.bucket(uuid, ''), names.object(uuid, '', name), { kind: 'bytes', chunks }),
          });
    return { inode, names, term, loaded, reader, writeBack };
  }

  records(inode: Inode, term: Term): ObjectRecords {
    const { namespace, ownership } = this.#components.registry;
    return new ObjectRecords({ namespace, ownership, clock: this.#components.clock }, this.#incarnation, inode, term);
  }

  open(basis: ObjectBasis, beginning: ObjectBeginning): OpenObject {
    const { files, clock, random, logger, registry, cache, disk } = this.#components;
    const { inode, names, term, loaded, reader, writeBack } = basis;
    const { map, table, uuid } = loaded;
    const { owner, records } = beginning;
    let opened: OpenObject | null = null;
    let keeper: ObjectKeeper | null = null;
    const object = new BlockObject(
      {
        map,
        table,
        reader,
        readAhead: new ReadAhead(
          { ...this.#components, uuid, map, table, names, budget: this.#components.readAheadBudget, former: () => reader.former },
          this.#components.readAheadStatistics,
        ),
        cache,
        admission: this.#components.admission,
        hooks: {
          confirmUnprotected: () => keeper?.confirmUnprotected(),
          touched: (startBlock, blockCount) => writeBack?.touched(startBlock, blockCount),
          logged: (call) => this.#components.recovered?.(inode.fileid, [call]),
        },
      },
      { uuid, term },
      beginning.state,
      beginning.lastSequence,
      { patienceMs: this.#settings.patienceMs },
    );
    for (const [number, row] of beginning.rows) object.adoptSegment(number, row);
    const log = new ObjectLog(
      {
        files,
        clock,
        random,
        logger,
        syncLatency: this.#components.syncLatency,
        events: {
          apply: (record) => object.apply(record),
          opened: (segment) => object.segmentOpened(segment),
          sealed: (segment, totalBytes, lastSequence) => keeper?.sealed(segment, totalBytes, lastSequence),
          fault: (damaged, durableSequence, kept) => opened?.fault(damaged, durableSequence, kept),
          renewVerifier: async () => opened?.renewVerifier(),
          relocate: (moved) => object.relocate(moved),
          relocated: () => opened?.relocated(),
        },
      },
      { vpoolUuid: registry.vpool.uuid, objectUuid: uuid, term, cut: owner.root.closedEpochs.at(-1) ?? null },
      { segmentBytes: this.#settings.segmentBytes, preallocate: inode.class === 'volume', patienceMs: this.#settings.patienceMs },
      { nextSegment: Math.max(beginning.lastSegment, owner.root.uploadedSegment) + 1, nextSequence: beginning.lastSequence + 1 },
    );
    object.attachLog(log);
    keeper = new ObjectKeeper(
      {
        store: this.#components.store,
        writer: this.#components.writer,
        files,
        names,
        records,
        clock,
        logger,
        object,
        log,
        writeBack,
        pagesPressed: () => this.#components.pool.isPressed,
        roomPressed: () => this.#components.admission.isPressed,
        keepCalls: (durable) => this.#components.keepCalls?.(inode.fileid, durable) ?? Promise.resolve(),
      },
      {
        vpoolUuid: registry.vpool.uuid,
        sealAfterMs: this.#settings.sealAfterMs,
        checkpointAfterBytes: this.#settings.checkpointAfterBytes,
        graceTimeMs: this.#settings.graceTimeMs,
        restMs: this.#settings.restMs ?? 0,
      },
      {
        owner,
        checkpointNumber: loaded.checkpointNumber,
        checkpointSequence: loaded.sequence,
        checkpointRow: loaded.checkpointRow,
        garbage: loaded.garbage,
        claimed: beginning.claimed,
        loggedBytes: beginning.loggedBytes,
        moved: beginning.moved,
      },
    );
    opened = new OpenObject(
      { disk, files, clock, random, vpoolUuid: registry.vpool.uuid, logger, records },
      {
        fileid: inode.fileid,
        object,
        log,
        keeper,
        verifier: beginning.verifier,
        unsealed: beginning.unsealed,
        arrived: beginning.arrived,
      },
    );
    return opened;
  }
}
