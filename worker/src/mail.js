// One mail at the edge: its bytes, never decoded, and what Cloudflare says of it.

// What AES-GCM adds behind the message.
const ROOM_BEHIND = 16;
// Cloudflare's own lines end with this one; below it the sender writes what he likes.
const LAST_TRUSTED_LINE = "\nx-cf-spamh-score:";
const TRUSTED_BYTES = 16384;

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
    mail.#buffer = new Uint8Array(room + message.rawSize + ROOM_BEHIND);
    for await (const chunk of message.raw) {
      mail.#append(chunk);
    }
    return mail;
  }

  #append(chunk) {
    const needed = this.#end + chunk.length + ROOM_BEHIND;
    if (needed > this.#buffer.length) {
      // Only where rawSize was too small. It never is, and a mail must not depend on it.
      const larger = new Uint8Array(2 * needed);
      larger.set(this.#buffer);
      this.#buffer = larger;
    }
    this.#buffer.set(chunk, this.#end);
    this.#end += chunk.length;
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
    const top = new TextDecoder("latin1").decode(this.raw.subarray(0, TRUSTED_BYTES));
    const trusted = top.slice(0, top.toLowerCase().indexOf(LAST_TRUSTED_LINE) + 1);
    return /^Received: from \S+ \(([0-9a-f:.]{2,45})\)\s+by cloudflare-email\.net\s/i.exec(trusted)?.[1] ?? null;
  }
}
