// The mailboxes that exist at home, as `drain publish-recipients` published them (FORMAT.md).
//
// Refusing is final for the sender, so this says "unknown" only when it is certain.
// Whatever is missing, old, damaged or not signed: nobody is unknown.

import { bytes, hex, hmacKey } from "./bytes.js";

const KEY = "config/recipients";
const FIRST_LINE = "drain recipients v1\n";
const MAC_LENGTH = 64; // hex digits
const SIZE_LIMIT = 128 * 1024; // of which the CPU time of one mail is enough
const REREAD_MS = 5 * 60 * 1000;
const LONGEST_AGE_MS = 7 * 24 * 60 * 60 * 1000;
const CLOCKS_DIFFER_MS = 60 * 60 * 1000;
// A dot-string (RFC 5321 4.1.2). Quoted, or not in ASCII, one mailbox can be spelled in more
// ways than two programs agree on.
const PLAIN_ADDRESS = /^[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+$/;

/** What one isolate knows of the list. */
export class Recipients {
  #list = null;
  #readAt = -Infinity;
  #token;
  #key;

  /** Whether home said that there is no such mailbox. Never throws. */
  async unknown(recipient, bucket, token) {
    if (!token) {
      return false;
    }
    try {
      if (token !== this.#token || Date.now() - this.#readAt >= REREAD_MS) {
        // First, so that a bucket in trouble is not asked again for every mail.
        this.#readAt = Date.now();
        this.#token = token;
        this.#list = null;
        this.#key = await hmacKey(bytes(token));
        this.#list = await read(bucket, this.#key);
      }
      return this.#list !== null && (await this.#isMissing(recipient, this.#list));
    } catch (error) {
      console.warn(`The list of recipients is not used: ${error.message}`);
      return false;
    }
  }

  async #isMissing(recipient, list) {
    if (!PLAIN_ADDRESS.test(recipient)) {
      return false;
    }
    const address = recipient.toLowerCase();
    const at = address.lastIndexOf("@");
    if (isOld(list) || !(await this.#has(list, address.slice(at)))) {
      return false;
    }
    const local = address.slice(0, at);
    const bases = [...list.delimiters].map((delimiter) => local.split(delimiter, 1)[0]);
    for (const name of new Set([local, ...bases])) {
      if (name !== "" && (await this.#has(list, name + address.slice(at)))) {
        return false;
      }
    }
    return true;
  }

  async #has(list, name) {
    const digest = await crypto.subtle.sign("HMAC", this.#key, bytes(`drain recipient v1\n${list.salt}\n${name}`));
    return list.hashes.has(hex(digest).slice(0, 32));
  }
}

async function read(bucket, key) {
  const object = await bucket.get(KEY);
  if (object === null || object.size > SIZE_LIMIT) {
    return null;
  }
  const text = await object.text();
  const json = text.slice(FIRST_LINE.length + MAC_LENGTH + 1);
  const mac = unhex(text.slice(FIRST_LINE.length, FIRST_LINE.length + MAC_LENGTH));
  if (!(await crypto.subtle.verify("HMAC", key, mac, bytes(FIRST_LINE + json)))) {
    throw new Error("its signature is wrong");
  }
  const { published, salt, delimiters, hashes } = JSON.parse(json);
  const list = { published: Date.parse(published), salt, delimiters, hashes: new Set(hashes) };
  if (!(Math.abs(object.uploaded - list.published) <= CLOCKS_DIFFER_MS)) {
    throw new Error("it was published long before it was put there");
  }
  return list;
}

// Asked for each mail: a list may grow old in an isolate that cannot read a newer one.
function isOld({ published }) {
  const age = Date.now() - published;
  return !(age <= LONGEST_AGE_MS && age >= -CLOCKS_DIFFER_MS);
}

function unhex(text) {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}
