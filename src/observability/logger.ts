/** Structured log: a static message with metadata. */
export interface Logger {
  debug(message: string, metadata?: object): void;
  info(message: string, metadata?: object): void;
  warn(message: string, metadata?: object): void;
  error(message: string, metadata?: object): void;
  /** A logger that adds `metadata` to every record. */
  child(metadata: object): Logger;
}
