// HPKE (RFC 9180), the sender's half: base mode, single shot, with
// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-GCM, all of it by WebCrypto.
//
// Every LabeledExtract of the RFC is followed by LabeledExpand, and the two together
// are WebCrypto's "HKDF" with the labels put into its salt, key and info.

import { bytes, concat, hmacKey } from "./bytes.js";

const KEM_X25519 = 0x0020;
const KDF_SHA256 = 0x0001;
const AEAD_OF_KEY_LENGTH = { 16: 0x0001, 32: 0x0002 };
const NONCE_LENGTH = 12;
const SECRET_LENGTH = 32;
const MODE_BASE = 0;

const EMPTY = new Uint8Array(0);
const VERSION = bytes("HPKE-v1");
const KEM_SUITE = concat(bytes("KEM"), uint16(KEM_X25519));
const EAE_PRK = labeled(KEM_SUITE, "eae_prk", EMPTY);
const SHARED_SECRET = labeled(KEM_SUITE, "shared_secret", EMPTY, SECRET_LENGTH);

/** The key to seal for, with everything that depends on the key and *info* alone. */
export class PublicKey {
  #key;
  #rawKey;
  #aes;
  #keyInfo;
  #nonceInfo;
  #noSecret;

  /**
   * @param {Uint8Array} rawKey the X25519 public key, 32 bytes
   * @param {Uint8Array} info
   * @param {16 | 32} keyLength of AES, in bytes
   */
  static async import(rawKey, info, keyLength = 32) {
    const self = new PublicKey();
    self.#rawKey = rawKey;
    const suite = concat(
      bytes("HPKE"),
      uint16(KEM_X25519),
      uint16(KDF_SHA256),
      uint16(AEAD_OF_KEY_LENGTH[keyLength]),
    );
    self.#key = await crypto.subtle.importKey("raw", rawKey, "X25519", false, []);
    const context = concat(
      [MODE_BASE],
      await extract(labeled(suite, "psk_id_hash", EMPTY)),
      await extract(labeled(suite, "info_hash", info)),
    );
    self.#aes = { name: "AES-GCM", length: keyLength * 8 };
    self.#keyInfo = labeled(suite, "key", context, keyLength);
    self.#nonceInfo = labeled(suite, "base_nonce", context, NONCE_LENGTH);
    self.#noSecret = await hkdfKey(labeled(suite, "secret", EMPTY));
    return self;
  }

  /**
   * Encrypts one message. *ephemeral* is for test vectors; without it each message has a new one.
   * @returns {Promise<{enc: Uint8Array, ciphertext: ArrayBuffer}>}
   */
  async seal(plaintext, additionalData = EMPTY, ephemeral = undefined) {
    ephemeral ??= await crypto.subtle.generateKey("X25519", false, ["deriveBits"]);
    const enc = new Uint8Array(await crypto.subtle.exportKey("raw", ephemeral.publicKey));
    const shared = await this.#encapsulated(ephemeral.privateKey, enc);
    const [aes, iv] = await Promise.all([
      crypto.subtle.deriveKey(hkdf(shared, this.#keyInfo), this.#noSecret, this.#aes, false, ["encrypt"]),
      crypto.subtle.deriveBits(hkdf(shared, this.#nonceInfo), this.#noSecret, NONCE_LENGTH * 8),
    ]);
    const ciphertext = await crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData }, aes, plaintext);
    return { enc, ciphertext };
  }

  // Encap(), RFC 9180 4.1. WebCrypto refuses a result of all zeros, as 7.1.4 wants.
  async #encapsulated(privateKey, enc) {
    const dh = await crypto.subtle.deriveBits({ name: "X25519", public: this.#key }, privateKey, 256);
    const secret = await hkdfKey(concat(EAE_PRK, new Uint8Array(dh)));
    return crypto.subtle.deriveBits(hkdf(EMPTY, concat(SHARED_SECRET, enc, this.#rawKey)), secret, SECRET_LENGTH * 8);
  }
}

// The input of LabeledExtract, or with *length* the info of LabeledExpand (RFC 9180 4).
function labeled(suite, label, value, length = undefined) {
  return concat(length === undefined ? EMPTY : uint16(length), VERSION, suite, bytes(label), value);
}

// HKDF-Extract without a salt, alone (RFC 5869 2.2: then the salt is 32 zeros).
async function extract(input) {
  return new Uint8Array(await crypto.subtle.sign("HMAC", await hmacKey(new Uint8Array(32)), input));
}

function hkdfKey(input) {
  return crypto.subtle.importKey("raw", input, "HKDF", false, ["deriveBits", "deriveKey"]);
}

function hkdf(salt, info) {
  return { name: "HKDF", hash: "SHA-256", salt, info };
}

function uint16(number) {
  return [number >> 8, number & 0xff];
}
