// One mail at the edge: its bytes, never decoded, and what Cloudflare says of it.

// What AES-GCM adds behind the message.
const ROOM_BEHIND = 16;
// Cloudflare's own lines end with this one; below it the sender writes what he likes.
const LAST_TRUSTED_LINE = /\nx-cf-spamh-score:/i;
// The name before the address can be what the sender says of himself, with blanks and
// brackets in it; but no line end. So where there is none, there must be no second "by".
const RECEIVED = /^Received: from [^\r\n]+ \(([0-9a-f:.]{2,45})\)\r?\n[ \t]+by cloudflare-email\.net[ \t]/i;
const RECEIVED_ON_ONE_LINE =
  /^Received: from \S+ \(([0-9a-f:.]{2,45})\) by cloudflare-email\.net[ \t](?!.*by cloudflare-email\.net)/i;
const TRUSTED_BYTES = 16384;

// Not "latin1", which costs four times as much. What is not ASCII matters to nobody here.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * A mail in one buffer, with room in front of the message for what will go before it and
 * behind it for the tag. So the message is never moved: the text whose digest is its name,
 * the plaintext and the object are three views of this buffer, one after the other, and
 * with the ciphertext two copies of a mail are alive at once.
 */
export class Mail {
  #buffer;
  #begin;
  #end;

  /** Reads a message of the Email Worker API to its end. *room* is in bytes. */
  static async read(message, room) {
    const mail = new Mail();
    mail.#begin = mail.#end = room;
    // One byte more than there should be, for the end of the stream to be seen.
    mail.#buffer = new Uint8Array(room + (message.rawSize ?? 0) + 1 + ROOM_BEHIND);
    const reader = byteReader(message.raw);
    while (!(await mail.#fill(reader))) {
      mail.#makeRoom();
    }
    if (mail.raw.length < message.rawSize) {
      // Stored, it would be taken for the whole; so the sender has to try again.
      throw new Error(`The mail ended after ${mail.raw.length} of ${message.rawSize} bytes.`);
    }
    return mail;
  }

  // Reads as much as there is room for, right into its place: chunk by chunk costs more
  // than all the rest. Whether that was the end.
  async #fill(reader) {
    const free = this.#buffer.subarray(this.#end, -ROOM_BEHIND);
    // The stream takes the buffer away, and gives it back.
    const { value, done } = await reader.read(free, { min: free.length });
    this.#buffer = new Uint8Array(value.buffer);
    this.#end += value.length;
    return done;
  }

  // Only where rawSize was too small. It never is, and a mail must not depend on it.
  #makeRoom() {
    if (this.#end + ROOM_BEHIND === this.#buffer.length) {
      const larger = new Uint8Array(2 * this.#buffer.length);
      larger.set(this.#buffer);
      this.#buffer = larger;
    }
  }

  /** The message, byte for byte. */
  get raw() {
    return this.#buffer.subarray(this.#begin, this.#end);
  }

  /** The message with *head* in front of it, until the next call of this. */
  behind(head) {
    const begin = this.#begin - head.length;
    this.#buffer.set(head, begin);
    return this.#buffer.subarray(begin, this.#end);
  }

  /** Puts *sealed* in the place of *plaintext*, which `behind` gave, and *head* in front of it. */
  become(head, plaintext, sealed) {
    const begin = plaintext.byteOffset - head.length;
    this.#buffer.set(head, begin);
    this.#buffer.set(sealed, plaintext.byteOffset);
    return this.#buffer.subarray(begin, plaintext.byteOffset + sealed.length);
  }

  /** The address that handed the mail to Cloudflare, as Cloudflare's first line has it; null if it has none. */
  get ip() {
    const top = decoder.decode(this.raw.subarray(0, TRUSTED_BYTES));
    const trusted = top.slice(0, top.search(LAST_TRUSTED_LINE) + 1);
    return (RECEIVED.exec(trusted) ?? RECEIVED_ON_ONE_LINE.exec(trusted))?.[1] ?? null;
  }
}

// Cloudflare's stream is one of bytes; any other is made one.
function byteReader(stream) {
  try {
    return stream.getReader({ mode: "byob" });
  } catch {
    return stream.pipeThrough(new IdentityTransformStream()).getReader({ mode: "byob" });
  }
}
