export class XdrReader {}
