/** What a peer sent is no message of the protocol. The session that it came on is closed, with the message as reason; never thrown past this part. */
export class FrameError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'FrameError';
  }
}
