// Bytes, and what is made of them, as every other file here wants it.

const encoder = new TextEncoder();

export function bytes(text) {
  return encoder.encode(text);
}

export function hex(buffer) {
  return new Uint8Array(buffer).toHex();
}

export function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let place = 0;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}

export function hmacKey(raw) {
  return crypto.subtle.importKey("raw", raw, { name: "HMAC", hash: "SHA-256" }, false, ["sign", "verify"]);
}
