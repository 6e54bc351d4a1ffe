// What runs in workerd: the Worker to measure, two to compare it with, and what hands them mail.

import sealing from "../src/index.js";

/** Only reads the stream to its end: what no Worker can do without. */
const reading = {
  async email(message, env) {
    const reader = message.raw.getReader({ mode: "byob" });
    let buffer = new ArrayBuffer(64 * 1024);
    for (;;) {
      const { value, done } = await reader.read(new Uint8Array(buffer));
      if (done) {
        return;
      }
      env.MAIL.count(value.byteLength);
      buffer = value.buffer;
    }
  },
};

/** Stores the mail as it is, as fast as it simply goes. */
const storing = {
  async email(message, env) {
    const body = await new Response(message.raw).arrayBuffer();
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", body));
    const name = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    await env.MAIL.put(name, body, { onlyIf: { etagDoesNotMatch: "*" } });
  },
};

const workers = { reading, storing, sealing };

/** In the place of R2. It takes all it is given, and says how much that was. */
class Bucket {
  bytes = 0;

  async get() {
    return null;
  }

  async put(key, body) {
    if (body instanceof ReadableStream) {
      body = await new Response(body).arrayBuffer();
    }
    this.count(body.byteLength);
    return { key, size: body.byteLength };
  }

  count(length) {
    this.bytes += length;
  }
}

// Mails that stay here, to be read from memory.
const kept = new Map();

function messageOf(raw, rawSize) {
  return {
    from: "sender@example.org",
    to: "recipient@example.com",
    raw,
    rawSize,
    headers: new Headers({ subject: "A mail of the benchmark" }),
    setReject(reason) {
      throw new Error(`refused: ${reason}`);
    },
  };
}

export default {
  // PUT keeps a mail. POST hands one over, that of its own body or a kept one,
  // and answers how many bytes arrived in the bucket.
  async fetch(request, env, ctx) {
    const url = new URL(request.url);
    const size = Number(url.searchParams.get("size"));
    if (request.method === "PUT") {
      kept.clear();
      kept.set(size, await request.arrayBuffer());
      return new Response("0");
    }
    const raw = kept.has(size) ? new Response(kept.get(size)).body : request.body;
    const bucket = new Bucket();
    await workers[url.pathname.slice(1)].email(messageOf(raw, size), { ...env, MAIL: bucket }, ctx);
    return new Response(String(bucket.bytes));
  },
};
