import { gunzipSync, gzipSync } from 'node:zlib';

/** What should be a bundle isn't one. */
export class ArchiveError extends Error {
  readonly code = 'NOT_A_BUNDLE';
  override readonly name = 'ArchiveError';
}

const block = 512;
/** Bytes of everything in a bundle; more isn't unpacked. */
const maxBytes = 512 * 1024 * 1024;
const maxFiles = 10_000;

/**
 * Files as `tar.gz`, in the form `ustar`: regular files of one owner and one time, so that equal
 * files give equal bytes.
 *
 * @throws ArchiveError for a name that the form has no room for
 */
export function pack(files: ReadonlyMap<string, string>): Buffer {
  const parts = [...files].flatMap(([name, text]) => {
    const data = Buffer.from(text);
    return [header(name, data.length), data, Buffer.alloc((block - (data.length % block)) % block)];
  });
  return gzipSync(Buffer.concat([...parts, Buffer.alloc(2 * block)]), { level: 9 });
}

function header(name: string, size: number): Buffer {
  if (Buffer.byteLength(name) > 100) throw new ArchiveError(`too long a name: ${name}`);
  const head = Buffer.alloc(block);
  head.write(name, 0);
  head.write('0000644\0', 100);
  head.write('0000000\0', 108);
  head.write('0000000\0', 116);
  head.write(`${size.toString(8).padStart(11, '0')}\0`, 124);
  head.write('00000000000\0', 136);
  head.write('0', 156);
  head.write('ustar\u000000', 257);
  head.write(`${checksum(head).toString(8).padStart(6, '0')}\0 `, 148);
  return head;
}

/** The sum of the bytes, with spaces in place of the checksum itself. */
function checksum(head: Buffer): number {
  return head.reduce((sum, byte, index) => sum + (index >= 148 && index < 156 ? 0x20 : byte), 0);
}

/**
 * The files of a `tar.gz` that {@link pack} made.
 *
 * @throws ArchiveError for anything else: another form, a file that stands there twice, bytes that
 *   belong to no file
 */
export function unpack(archive: Uint8Array): Map<string, string> {
  let tar: Buffer;
  try {
    tar = gunzipSync(archive, { maxOutputLength: maxBytes });
  } catch {
    throw new ArchiveError('it is not a complete gzip file');
  }
  const files = new Map<string, string>();
  let at = 0;
  for (; at + block <= tar.length;) {
    const head = tar.subarray(at, at + block);
    if (head.every((byte) => byte === 0)) break;
    const name = textAt(head, 0, 100);
    const size = Number.parseInt(textAt(head, 124, 12), 8);
    const isSound =
      textAt(head, 257, 6) === 'ustar' &&
      Number.parseInt(textAt(head, 148, 8), 8) === checksum(head) &&
      head.equals(header(name, size));
    if (!isSound || !(size >= 0) || at + block + size > tar.length) {
      throw new ArchiveError('a file in it is damaged');
    }
    if (files.has(name) || files.size >= maxFiles) throw new ArchiveError(`${name} is there twice`);
    files.set(name, tar.subarray(at + block, at + block + size).toString());
    at += block + Math.ceil(size / block) * block;
  }
  if (tar.length !== at + 2 * block || tar.subarray(at).some((byte) => byte !== 0)) {
    throw new ArchiveError('it has no proper end');
  }
  return files;
}

function textAt(head: Buffer, from: number, length: number): string {
  const field = head.subarray(from, from + length);
  const end = field.indexOf(0);
  return field.subarray(0, end < 0 ? length : end).toString();
}
