// The Email Worker: takes a mail, seals it, puts it into R2, and only then lets the
// sender go. What it throws is a temporary failure to the sender, who will try again;
// setReject is for ever, and for what is the mail's own fault.

import { Recipients } from "./recipients.js";
import { Seal, packPlain } from "./sealed.js";

const SIZE_LIMIT = 25 * 1024 * 1024;
const WAKE_MS = 10_000;

// Of this isolate, which lives for many mails.
const recipients = new Recipients();
const seals = new Map();

export default {
  async email(message, env, ctx) {
    const token = tokenOf(env);
    // Not awaited, a rejection would come after the end of the handler, and be an acceptance.
    if (message.rawSize > SIZE_LIMIT) {
      await message.setReject("5.3.4 The message is larger than 25 MiB");
      return;
    }
    if (await recipients.unknown(message.to, env.MAIL, token)) {
      await message.setReject("5.1.1 There is no such mailbox here");
      return;
    }
    const { name, body, metadata } = await pack(message, env, token);
    // If it is there already, this is another try of the same mail.
    await env.MAIL.put(`pending/${name}`, body, {
      onlyIf: { etagDoesNotMatch: "*" },
      customMetadata: metadata,
    });
    if (env.WAKE_URL) {
      ctx.waitUntil(wake(env.WAKE_URL));
    }
  },
};

function tokenOf(env) {
  const token = env.ORIGIN_TOKEN?.trim();
  // One that drain would read in another way makes every mail somebody else's.
  if (token !== undefined && !/^[ -+\--~]+$/.test(token)) {
    throw new Error("ORIGIN_TOKEN is not printable ASCII without a comma.");
  }
  return token;
}

async function pack(message, env, token) {
  if (env.DRAIN_PUBLIC_KEY) {
    return (await sealFor(env.DRAIN_PUBLIC_KEY)).pack(message, token);
  }
  if (env.ALLOW_PLAINTEXT === "true") {
    return packPlain(message, token);
  }
  throw new Error("DRAIN_PUBLIC_KEY is not set, and no mail is stored in the clear unless ALLOW_PLAINTEXT says so.");
}

async function sealFor(pem) {
  let seal = seals.get(pem);
  if (seal === undefined) {
    seal = await Seal.import(pem);
    seals.set(pem, seal);
  }
  return seal;
}

// The mail is safe already; home finds it without this too, only later.
async function wake(url) {
  try {
    await fetch(url, { method: "POST", signal: AbortSignal.timeout(WAKE_MS) });
  } catch (error) {
    // Not its message, which can hold the URL, and that a password.
    console.warn(`WAKE_URL did not answer: ${error.name}`);
  }
}
