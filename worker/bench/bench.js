// What sealing costs, beside what no Worker can do without and beside storing in the clear.
// README.md says what is measured and how to read it.

import { spawn } from "node:child_process";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const KIB = 1024;
const MIB = 1024 * KIB;
const WORKERS = ["reading", "storing", "sealing"];
// A round is *mails* for each Worker. A small mail costs little more than what else a
// process does, so there are more of them.
const SIZES = [
  { size: 10 * KIB, mails: 40, rounds: 41 },
  { size: 100 * KIB, mails: 20, rounds: 31 },
  { size: 1 * MIB, mails: 5, rounds: 31 },
  { size: 5 * MIB, mails: 2, rounds: 21 },
  { size: 25 * MIB, mails: 1, rounds: 21 },
];
const LARGEST = SIZES.at(-1).size;
const QUICK = { warmUp: 20, rounds: 3, mails: 5, inARow: 3 };
const THOROUGH = { warmUp: 300, rounds: Infinity, mails: Infinity, inARow: 20 };

const HIGHEST_RATIO = 1.4;
// What a mail may cost more whatever its size, for its own key pair and the key agreement. It
// is a tenth of what a free plan gives. Of a small mail it is more than the ratio allows.
const ALLOWANCE_MS = 1;
const MOST_COPIES = 3;
// Of JavaScript, in MiB: what a Worker may have.
const HEAP_LIMIT = 128;

const START_MS = 20_000;
const MAIL_MS = 30_000;
const WHOLE_MS = 15 * 60_000;

const WORKER_DIRECTORY = fileURLToPath(new URL("..", import.meta.url));

/** A process of workerd with one Worker in it. */
class Workerd {
  static #all = new Set();

  #worker;
  #directory;
  #child;
  #port;
  #agent = new Agent({ keepAlive: true, maxSockets: 1 });

  static async start(worker) {
    const self = new Workerd();
    self.#worker = worker;
    self.#directory = mkdtempSync(join(tmpdir(), "drain-bench-"));
    Workerd.#all.add(self);
    const file = join(self.#directory, "config.capnp");
    writeFileSync(file, configuration(worker));
    const binary = createRequire(import.meta.url)("workerd").default;
    self.#child = spawn(binary, ["serve", "--import-path=/", "--control-fd=3", file], {
      stdio: ["ignore", "inherit", "inherit", "pipe"],
    });
    self.#port = await self.#listening();
    return self;
  }

  static stopAll() {
    for (const workerd of Workerd.#all) {
      workerd.stop();
    }
  }

  stop() {
    this.#agent.destroy();
    this.#child?.kill("SIGKILL");
    rmSync(this.#directory, { recursive: true, force: true });
    Workerd.#all.delete(this);
  }

  #listening() {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error("workerd does not start")), START_MS);
      const ended = (reason) => {
        clearTimeout(late);
        reject(new Error(`workerd ended: ${reason}`));
      };
      this.#child.on("error", (error) => ended(error.message));
      this.#child.on("exit", (code, signal) => ended(code ?? signal));
      let text = "";
      this.#child.stdio[3].on("data", (data) => {
        text += data;
        const port = /"event":\s*"listen".*"port":\s*(\d+)/.exec(text)?.[1];
        if (port) {
          clearTimeout(late);
          resolve(Number(port));
        }
      });
    });
  }

  /** Hands over *mail*, *count* times. It is an error if not all of it came to the bucket. */
  async deliver(mail, count = 1) {
    for (; count > 0; count--) {
      const stored = Number(await this.#post(mail));
      if (!(this.#worker === "sealing" ? stored > mail.length : stored === mail.length)) {
        throw new Error(`${this.#worker} stored ${stored} bytes for a mail of ${mail.length}`);
      }
    }
  }

  #post(mail) {
    return new Promise((resolve, reject) => {
      const options = {
        method: "POST",
        port: this.#port,
        agent: this.#agent,
        headers: { "content-length": mail.length },
        signal: AbortSignal.timeout(MAIL_MS),
      };
      const failed = (reason) => reject(new Error(`${this.#worker}, ${name(mail.length)}: ${reason}`));
      const sent = request(options, (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (data) => (text += data));
        response.on("error", (error) => failed(error.message));
        response.on("end", () => (response.statusCode === 200 ? resolve(text) : failed(response.statusCode)));
      });
      sent.on("error", (error) => failed(error.message));
      sent.end(mail);
    });
  }

  /** The nanoseconds that the threads of the process have had a CPU. */
  cpu() {
    const tasks = `/proc/${this.#child.pid}/task`;
    return readdirSync(tasks)
      .map((task) => Number(readFileSync(join(tasks, task, "schedstat"), "latin1").split(" ", 1)[0]))
      .reduce((sum, time) => sum + time, 0);
  }

  /** What the process has in memory, in bytes. */
  memory() {
    return this.#status("VmRSS");
  }

  /** The most it had in memory since it started. */
  peak() {
    return this.#status("VmHWM");
  }

  #status(field) {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, "latin1");
    return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(status)[1]) * KIB;
  }
}

function configuration(worker) {
  const { publicKey } = generateKeyPairSync("x25519");
  const wrangler = readFileSync(join(WORKER_DIRECTORY, "wrangler.toml"), "utf8");
  const date = /^compatibility_date = "(.*)"$/m.exec(wrangler)[1];
  const modules = ["bench/workers.js", ...readdirSync(join(WORKER_DIRECTORY, "src")).map((file) => `src/${file}`)]
    .filter((file) => file.endsWith(".js"))
    .map((file) => `(name = ${quoted(file)}, esModule = embed ${quoted(join(WORKER_DIRECTORY, file))})`);
  return `
    using Workerd = import "/workerd/workerd.capnp";
    const config :Workerd.Config = (
      v8Flags = ["--max-old-space-size=${HEAP_LIMIT}"],
      services = [(name = "main", worker = (
        compatibilityDate = ${quoted(date)},
        modules = [${modules.join(", ")}],
        bindings = [
          (name = "WORKER", text = ${quoted(worker)}),
          (name = "DRAIN_PUBLIC_KEY", text = ${quoted(publicKey.export({ type: "spki", format: "pem" }))}),
          (name = "ORIGIN_TOKEN", text = ${quoted(randomBytes(24).toString("base64url"))}),
        ],
      ))],
      sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
    );
  `;
}

function quoted(text) {
  return `"${text.replace(/[\\"]/g, "\\$&").replaceAll("\n", "\\n")}"`;
}

/** Headers as Cloudflare leaves them, and an attachment up to *size*. */
function mailOf(size) {
  const signature = `        b=${randomBytes(240).toString("base64")}\r\n`;
  const head =
    "Received: from mail.example.org (192.0.2.25)\r\n" +
    "        by cloudflare-email.net (cloudflare) id 0123456789abcdef\r\n" +
    "        for <recipient@example.com>; Wed, 01 Jan 2025 00:00:00 +0000\r\n" +
    `ARC-Seal: i=1; a=rsa-sha256; s=2022; d=email.cloudflare.net; c=relaxed/relaxed;\r\n${signature}` +
    `ARC-Message-Signature: i=1; a=rsa-sha256; s=2022; d=email.cloudflare.net;\r\n${signature}` +
    "ARC-Authentication-Results: i=1; mx.cloudflare.net; dmarc=pass; spf=pass\r\n" +
    "Received-SPF: pass (mx.cloudflare.net: domain of sender@example.org designates 192.0.2.25)\r\n" +
    "Authentication-Results: mx.cloudflare.net; dmarc=pass; spf=pass\r\n" +
    "X-CF-SpamH-Score: 1\r\n" +
    `DKIM-Signature: v=1; a=rsa-sha256; s=mail; d=example.org;\r\n${signature}` +
    "From: sender@example.org\r\nTo: recipient@example.com\r\nSubject: A mail of the benchmark\r\n" +
    "MIME-Version: 1.0\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n";
  const lines = randomBytes(size).toString("base64").replace(/.{76}/g, "$&\r\n");
  return Buffer.from(head + lines, "latin1").subarray(0, size);
}

/** The milliseconds of CPU that a mail costs each Worker, for each round. */
async function times({ size, mails, rounds }, { warmUp }) {
  const mail = mailOf(size);
  const running = new Map();
  for (const worker of WORKERS) {
    const workerd = await Workerd.start(worker);
    // The first mails pay for what is done once, and for code that is not yet compiled.
    await workerd.deliver(mailOf(SIZES[0].size), warmUp);
    await workerd.deliver(mail, 2);
    running.set(worker, workerd);
  }
  const table = [];
  for (let round = 0; round < rounds; round++) {
    const row = {};
    for (const [worker, workerd] of running) {
      const before = workerd.cpu();
      await workerd.deliver(mail, mails);
      row[worker] = (workerd.cpu() - before) / mails / 1e6;
    }
    table.push(row);
  }
  Workerd.stopAll();
  return table;
}

/**
 * What *count* mails, one after another, take of memory in a new process, in bytes: its peak,
 * and how much that is above what it had before them. With one mail, nothing of an
 * earlier one can still be there, uncollected, and be taken for a copy.
 */
async function memory(worker, size, count) {
  const workerd = await Workerd.start(worker);
  await workerd.deliver(mailOf(SIZES[0].size), 10);
  const before = workerd.memory();
  await workerd.deliver(mailOf(size), count);
  const peak = workerd.peak();
  workerd.stop();
  return { peak, taken: peak - before };
}

function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  return (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.ceil((sorted.length - 1) / 2)]) / 2;
}

function name(size) {
  return size < MIB ? `${size / KIB} KiB` : `${size / MIB} MiB`;
}

const COLUMNS = ["size", "reading ms", "storing ms", "sealing ms", "sealing/storing", "peak MiB"];

function line(cells) {
  return cells.map((cell, place) => cell.padStart(Math.max(10, COLUMNS[place].length))).join("  ");
}

async function main() {
  const { values } = parseArgs({ options: { quick: { type: "boolean" }, json: { type: "string" } } });
  const effort = values.quick ? QUICK : THOROUGH;
  const problems = [];
  const result = { sizes: [], copies: {} };

  console.log(line(COLUMNS));
  for (const { size, mails, rounds } of SIZES) {
    const plan = { size, mails: Math.min(mails, effort.mails), rounds: Math.min(rounds, effort.rounds) };
    const table = await times(plan, effort);
    const [reading, storing, sealing] = WORKERS.map((worker) => median(table.map((row) => row[worker])));
    // Of each round by itself, so that what the machine does meanwhile is in both.
    const ratio = median(table.map((row) => row.sealing / row.storing));
    const { peak } = await memory("sealing", size, 1);
    result.sizes.push({ size, reading, storing, sealing, ratio, peak, table });
    const milliseconds = [reading, storing, sealing].map((time) => time.toPrecision(3));
    console.log(line([name(size), ...milliseconds, ratio.toFixed(2), (peak / MIB).toFixed(0)]));
    const more = median(table.map((row) => row.sealing - row.storing));
    if (ratio > HIGHEST_RATIO && more > ALLOWANCE_MS) {
      const words = `${ratio.toFixed(2)} times what storing does, and ${more.toFixed(1)} ms more`;
      problems.push(`${name(size)}: sealing costs ${words}; ${HIGHEST_RATIO} times or ${ALLOWANCE_MS} ms is the limit`);
    }
  }

  console.log(`\nCopies of a mail of ${name(LARGEST)}: of one mail, and of ${effort.inARow} in a row`);
  for (const worker of WORKERS) {
    const [one, many] = [await memory(worker, LARGEST, 1), await memory(worker, LARGEST, effort.inARow)];
    const copies = { one: one.taken / LARGEST, many: many.taken / LARGEST };
    result.copies[worker] = copies;
    console.log(`${worker.padStart(10)}  ${copies.one.toFixed(2)}  ${copies.many.toFixed(2)}`);
  }
  if (result.copies.sealing.one > MOST_COPIES) {
    problems.push(`${name(LARGEST)}: sealing takes more than ${MOST_COPIES} copies of the mail`);
  }

  if (values.json) {
    writeFileSync(values.json, JSON.stringify(result, null, 2) + "\n");
  }
  return problems;
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => process.exit(1));
}
process.on("exit", () => Workerd.stopAll());
setTimeout(() => {
  console.error("The benchmark takes too long");
  process.exit(1);
}, WHOLE_MS).unref();

try {
  const problems = await main();
  for (const problem of problems) {
    console.error(problem);
  }
  process.exit(problems.length === 0 ? 0 : 1);
} catch (error) {
  console.error(error);
  process.exit(1);
}
