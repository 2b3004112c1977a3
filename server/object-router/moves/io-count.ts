/** How much an object was used of late: counts that decay. One per object; adding to it is all that the way of an I/O pays. */
export class IoCount {
  reads = 0;
  writes = 0;

  get total(): number {
    return this.reads + this.writes;
  }

  /** `factor` below 1: what remains after the time since it was last called. */
  decay(factor: number): void {
    this.reads *= factor;
    this.writes *= factor;
  }
}
