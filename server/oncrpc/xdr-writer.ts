export class XdrWriter {}
