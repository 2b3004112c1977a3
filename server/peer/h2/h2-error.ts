/** Codes of RFC 9113, section 7, as far as this end says them. */
export const H2Code = {
  NO_ERROR: 0,
  PROTOCOL_ERROR: 1,
  FLOW_CONTROL_ERROR: 3,
  FRAME_SIZE_ERROR: 6,
  COMPRESSION_ERROR: 9,
  ENHANCE_YOUR_CALM: 11,
} as const;
export type H2Code = (typeof H2Code)[keyof typeof H2Code];

/** What was received is no HTTP/2, or more of it than is taken: the connection ends with this code. */
export class H2Error extends Error {
  override readonly name = 'H2Error';
  readonly code: H2Code;

  constructor(code: H2Code, message: string) {
    super(message);
    this.code = code;
  }
}
