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

/** Stores the mail as it is, in the fastest way that is simple too. */
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

// Not the Worker's work, so made once.
const headers = new Headers({ subject: "A mail of the benchmark" });

function setReject(reason) {
  throw new Error(`refused: ${reason}`);
}

export default {
  // The body of the request is the mail: a native stream of bytes that come from outside, as a
  // mail's do. The answer is how many bytes arrived in the bucket.
  async fetch(request, { WORKER, DRAIN_PUBLIC_KEY, ORIGIN_TOKEN }, ctx) {
    const message = {
      from: "sender@example.org",
      to: "recipient@example.com",
      raw: request.body,
      rawSize: Number(request.headers.get("content-length")),
      headers,
      setReject,
    };
    const bucket = new Bucket();
    await workers[WORKER].email(message, { DRAIN_PUBLIC_KEY, ORIGIN_TOKEN, MAIL: bucket }, ctx);
    return new Response(String(bucket.bytes));
  },
};
