// Objects as FORMAT.md describes them: "sealed v1", and the plain kind for those who ask for it.

import { bytes, concat, hex, hmacKey } from "./bytes.js";
import { PublicKey } from "./hpke.js";
import { Mail } from "./mail.js";

const MAGIC = bytes("DRN1");
const KEY_ID_LENGTH = 8;
const ENC_LENGTH = 32;
const LENGTH_LENGTH = 4;
const PREFIX_LENGTH = MAGIC.length + KEY_ID_LENGTH + ENC_LENGTH;
const LONGEST_IP = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255";
// SubjectPublicKeyInfo of X25519 (RFC 8410 4), up to the 32 bytes of the key.
const SPKI_HEAD = "302a300506032b656e032100";
// No address is longer (RFC 5321 4.5.3.1.3), and R2 takes little metadata.
const ADDRESS_LIMIT = 254;

/** A public key, ready to seal for. */
export class Seal {
  #keyId;
  #publicKey;

  /** @param {string} pem as `openssl pkey -pubout` writes it */
  static async import(pem) {
    const rawKey = publicKeyOf(pem);
    const seal = new Seal();
    seal.#keyId = new Uint8Array(await crypto.subtle.digest("SHA-256", rawKey)).slice(0, KEY_ID_LENGTH);
    seal.#publicKey = await PublicKey.import(rawKey, concat(bytes("drain sealed v1"), seal.#keyId));
    return seal;
  }

  /** Reads a mail: its name and the sealed object. */
  async pack(message, token) {
    const header = { to: message.to, from: message.from ?? "", received: new Date().toISOString(), ip: LONGEST_IP };
    if (token) {
      header.token = token;
    }
    const mail = await Mail.read(message, PREFIX_LENGTH + LENGTH_LENGTH + json(header).length);
    const name = await nameOf(mail, message.to, token);
    header.ip = mail.ip;
    const head = json(header);
    const plaintext = mail.behind(concat(uint32(head.length), head));
    const { enc, ciphertext } = await this.#publicKey.seal(plaintext);
    const body = mail.become(concat(MAGIC, this.#keyId, enc), plaintext, new Uint8Array(ciphertext));
    return { name, body, metadata: {} };
  }
}

/** Reads a mail: its name, and its bytes as they are with the envelope beside them. */
export async function packPlain(message, token) {
  const mail = await Mail.read(message, bytes(`${message.to}\n`).length);
  const name = await nameOf(mail, message.to, token);
  return { name, body: mail.raw, metadata: { to: metadataOf(message.to), from: metadataOf(message.from ?? "") } };
}

/** The same mail to the same recipient has the same name, so that Cloudflare's retries make one object. */
async function nameOf(mail, to, token) {
  const text = mail.behind(bytes(`${to}\n`));
  if (!token) {
    return hex(await crypto.subtle.digest("SHA-256", text));
  }
  return hex(await crypto.subtle.sign("HMAC", await nameKeyOf(token), text));
}

let nameKey = {};

// Imported once, not for each mail.
async function nameKeyOf(token) {
  if (nameKey.token !== token) {
    nameKey = { token, key: await hmacKey(bytes(token)) };
  }
  return nameKey.key;
}

// What is not ASCII goes as one RFC 2047 word, which S3 clients expect there.
function metadataOf(address) {
  const utf8 = bytes(address);
  if (utf8.length > ADDRESS_LIMIT) {
    return "";
  }
  return /^[ -~]*$/.test(address) ? address : `=?utf-8?B?${btoa(String.fromCharCode(...utf8))}?=`;
}

function publicKeyOf(pem) {
  const base64 = pem.replace(/-----[A-Z ]+-----|\\n|\s/g, "");
  const der = /^[A-Za-z0-9+/]{59}=$/.test(base64) ? Uint8Array.fromBase64(base64) : new Uint8Array(0);
  if (hex(der.subarray(0, der.length - 32)) !== SPKI_HEAD) {
    throw new Error("DRAIN_PUBLIC_KEY is not the PEM of an X25519 public key; `drain keygen` makes one.");
  }
  return der.subarray(-32);
}

function json(value) {
  return bytes(JSON.stringify(value));
}

function uint32(number) {
  return [number >>> 24, (number >>> 16) & 0xff, (number >>> 8) & 0xff, number & 0xff];
}
