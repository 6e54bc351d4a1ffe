// Calls the Worker inside workerd as Cloudflare calls it, with messages and faults that
// Miniflare's own route for mail cannot make. A request is the length of a JSON text
// (uint32), that text, and bytes; the answer is JSON. edge.py says what is in them.

const CALLS = { email, seal };
const realNow = Date.now;

export default {
  async fetch(request, env) {
    const body = new Uint8Array(await request.arrayBuffer());
    const end = 4 + new DataView(body.buffer).getUint32(0);
    const call = JSON.parse(new TextDecoder().decode(body.subarray(4, end)));
    return Response.json(await CALLS[call.do](call, body.subarray(end), env.MAIL));
  },
};

async function email(call, raw, bucket) {
  const { default: worker } = await import(`./${call.variant}/index.js`);
  const calls = [];
  const promises = [];
  let reason;
  const message = {
    from: call.from,
    to: call.to,
    headers: new Headers(),
    raw: call.scripted ? scripted(raw, call.pieces) : stream(raw, call.pieces, call.breaks),
    rawSize: call.rawSize ?? raw.length,
    // Late, as where the message comes by RPC: who does not wait for it has accepted the mail.
    async setReject(words) {
      await scheduler.wait(1);
      reason = words;
    },
  };
  const env = { ...call.vars, MAIL: observed(bucket, calls, call) };
  Date.now = () => realNow() + call.laterMs;
  let answer;
  try {
    await worker.email(message, env, { waitUntil: (promise) => promises.push(promise) });
    answer = reason === undefined ? { outcome: "accepted", words: "" } : { outcome: "rejected", words: reason };
  } catch (error) {
    answer = { outcome: "thrown", words: String(error?.message) };
  } finally {
    Date.now = realNow;
  }
  return { ...answer, calls, waited: await Promise.all(promises.map((promise) => end(promise, call.patienceMs))) };
}

/** The bucket: which methods were called, with the faults that the call asks for. */
function observed(bucket, calls, { failing, lateFailing, slowMs }) {
  return new Proxy(bucket, {
    get: (target, method) => async (...values) => {
      calls.push(method);
      await scheduler.wait(slowMs);
      if (failing.includes(method)) {
        throw new Error(`${method}: We encountered an internal error. Please try again. (10001)`);
      }
      const result = await target[method](...values);
      if (lateFailing.includes(method)) {
        throw new Error(`${method}: Network connection lost.`);
      }
      return result;
    },
  });
}

/** A stream as Cloudflare gives it, native; in *pieces* of these lengths, over and over. */
function stream(raw, pieces, breaks) {
  if (pieces.length === 0 && !breaks) {
    return new Response(raw).body;
  }
  const { readable, writable } = new IdentityTransformStream();
  // A Worker that refuses a mail does not have to read it.
  write(writable.getWriter(), raw, pieces, breaks).catch(() => {});
  return readable;
}

function scripted(raw, pieces) {
  return new ReadableStream({
    start(controller) {
      for (let begin = 0; begin < raw.length; begin += pieces[0]) {
        controller.enqueue(raw.slice(begin, begin + pieces[0]));
      }
      controller.close();
    },
  });
}

async function write(writer, raw, pieces, breaks) {
  for (let begin = 0, turn = 0; begin < raw.length; turn++) {
    const end = begin + (pieces[turn % pieces.length] ?? raw.length);
    await writer.write(raw.slice(begin, end));
    begin = end;
  }
  await (breaks ? writer.abort(new Error("The connection was lost.")) : writer.close());
}

function end(promise, patienceMs) {
  return Promise.race([
    promise.then(
      () => "done",
      (error) => `failed: ${error.message}`,
    ),
    scheduler.wait(patienceMs).then(() => "pending"),
  ]);
}

/** HPKE alone, under a fixed ephemeral key. */
async function seal({ variant, publicKey, info, keyLength, aad, ephemeral }, plaintext) {
  const { PublicKey } = await import(`./${variant}/hpke.js`);
  const key = await PublicKey.import(Uint8Array.fromHex(publicKey), Uint8Array.fromHex(info), keyLength);
  const pair = await keyPair(ephemeral.map((text) => Uint8Array.fromHex(text)));
  const { enc, ciphertext } = await key.seal(plaintext, Uint8Array.fromHex(aad), pair);
  return { enc: enc.toHex(), ciphertext: new Uint8Array(ciphertext).toHex() };
}

async function keyPair([secret, point]) {
  const [d, x] = [secret, point].map((bytes) => bytes.toBase64({ alphabet: "base64url", omitPadding: true }));
  const jwk = { kty: "OKP", crv: "X25519", d, x };
  return {
    privateKey: await crypto.subtle.importKey("jwk", jwk, "X25519", false, ["deriveBits"]),
    publicKey: await crypto.subtle.importKey("raw", point, "X25519", true, []),
  };
}
