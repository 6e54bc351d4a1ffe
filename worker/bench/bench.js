// What sealing costs, beside what cannot be done without and beside storing in the clear.
// README.md says what is measured and how to read it.

import { spawn } from "node:child_process";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { closeSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { Agent, request } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const KIB = 1024;
const MIB = 1024 * KIB;
const WORKERS = ["reading", "storing", "sealing"];
// Mails of one Worker in a row, and rounds of all the Workers. A small mail costs little
// more than the noise, so there are more of them.
const SIZES = [
  { size: 10 * KIB, mails: 40, rounds: 25 },
  { size: 100 * KIB, mails: 20, rounds: 25 },
  { size: 1 * MIB, mails: 5, rounds: 25 },
  { size: 5 * MIB, mails: 2, rounds: 21 },
  { size: 25 * MIB, mails: 1, rounds: 21 },
];
const HIGHEST_RATIO = 1.4;
const MOST_COPIES = 3;
// Megabytes of JavaScript heap, as in the Workers runtime.
const HEAP_LIMIT = 128;
const SMALL = 10 * KIB;
const WARM_UP_MAILS = 300;
const START_MS = 20_000;
const MAIL_MS = 30_000;
const WHOLE_MS = 15 * 60_000;

const src = join(dirname(fileURLToPath(import.meta.url)), "..", "src");
const here = dirname(fileURLToPath(import.meta.url));

/** A workerd with one Worker in it. */
class Workerd {
  static #all = new Set();

  #child;
  #directory;
  #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  #port;
  #worker;
  #fromMemory;

  static async start(worker, { fromMemory }) {
    const self = new Workerd();
    self.#worker = worker;
    self.#fromMemory = fromMemory;
    self.#directory = mkdtempSync(join(tmpdir(), "drain-bench-"));
    Workerd.#all.add(self);
    const config = join(self.#directory, "config.capnp");
    writeFileSync(config, configuration());
    const binary = createRequire(import.meta.url)("workerd").default;
    self.#child = spawn(binary, ["serve", "--import-path=/", "--control-fd=3", config], {
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
      let text = "";
      this.#child.stdio[3].on("data", (data) => {
        text += data;
        for (const line of text.split("\n").slice(0, -1)) {
          const event = JSON.parse(line);
          if (event.event === "listen") {
            clearTimeout(late);
            resolve(event.port);
          }
        }
      });
      this.#child.on("error", reject);
      this.#child.on("exit", (code, signal) => reject(new Error(`workerd ended: ${code ?? signal}`)));
    });
  }

  /** Makes *mail* the one that is handed over from now on, where mails come from memory. */
  async keep(mail) {
    if (this.#fromMemory) {
      await this.#request("PUT", mail.length, mail);
    }
  }

  /** Hands over one mail. It is an error if not all of it came to the bucket. */
  async deliver(mail) {
    const stored = Number(await this.#request("POST", mail.length, this.#fromMemory ? undefined : mail));
    if (!(this.#worker === "sealing" ? stored > mail.length : stored === mail.length)) {
      throw new Error(`${this.#worker} took ${stored} bytes of ${mail.length}`);
    }
  }

  #request(method, size, body) {
    return new Promise((resolve, reject) => {
      const options = {
        port: this.#port,
        method,
        path: `/${this.#worker}?size=${size}`,
        agent: this.#agent,
        headers: { "content-length": body?.length ?? 0 },
        signal: AbortSignal.timeout(MAIL_MS),
      };
      const sent = request(options, (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (data) => (text += data));
        response.on("error", reject);
        response.on("end", () => {
          if (response.statusCode === 200) {
            resolve(text);
          } else {
            reject(new Error(`${this.#worker}: ${response.statusCode} ${text}`));
          }
        });
      });
      sent.on("error", reject);
      sent.end(body);
    });
  }

  /** Nanoseconds that the threads of the process were on a CPU. */
  cpu() {
    const tasks = `/proc/${this.#child.pid}/task`;
    return readdirSync(tasks)
      .map((task) => Number(readFileSync(join(tasks, task, "schedstat"), "latin1").split(" ", 1)[0]))
      .reduce((sum, time) => sum + time, 0);
  }

  /** A line of /proc/PID/status, in bytes. */
  memory(name) {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, "latin1");
    return Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)[1]) * KIB;
  }

  /** VmHWM, the peak, starts anew. */
  forgetPeak() {
    const file = openSync(`/proc/${this.#child.pid}/clear_refs`, "w");
    writeSync(file, "5");
    closeSync(file);
  }
}

function configuration() {
  const { publicKey } = generateKeyPairSync("x25519");
  const pem = publicKey.export({ type: "spki", format: "pem" });
  const modules = [
    ["bench/workers.js", join(here, "workers.js")],
    ...readdirSync(src).map((name) => [`src/${name}`, join(src, name)]),
  ].map(([name, path]) => `(name = ${text(name)}, esModule = embed ${text(path)})`);
  return `
    using Workerd = import "/workerd/workerd.capnp";
    const config :Workerd.Config = (
      v8Flags = ["--max-old-space-size=${HEAP_LIMIT}"],
      services = [(name = "main", worker = (
        compatibilityDate = "2026-07-01",
        modules = [${modules.join(", ")}],
        bindings = [
          (name = "DRAIN_PUBLIC_KEY", text = ${text(pem)}),
          (name = "ORIGIN_TOKEN", text = ${text(randomBytes(24).toString("base64url"))}),
        ],
      ))],
      sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
    );
  `;
}

function text(value) {
  return `"${value.replace(/[\\"]/g, "\\$&").replaceAll("\n", "\\n")}"`;
}

function mailOf(size) {
  const head = Buffer.from(
    "Received: from mail.example.org (192.0.2.25)\r\n" +
      "        by cloudflare-email.net (cloudflare) id 0123456789abcdef\r\n" +
      "        for <recipient@example.com>; Wed, 01 Jan 2025 00:00:00 +0000\r\n" +
      "X-CF-SpamH-Score: 1\r\n" +
      "From: sender@example.org\r\nTo: recipient@example.com\r\nSubject: A mail of the benchmark\r\n\r\n",
    "latin1",
  );
  return Buffer.concat([head, randomBytes(size - head.length)]);
}

/** Milliseconds of CPU for one mail, of each Worker in each round. */
async function times({ size, mails, rounds }, options) {
  const mail = mailOf(size);
  const small = mailOf(SMALL);
  const running = {};
  for (const worker of WORKERS) {
    running[worker] = await Workerd.start(worker, options);
    // The first mails pay for what is done once, and for code that is not optimized yet.
    await running[worker].keep(small);
    for (let count = 0; count < options.warmUp; count++) {
      await running[worker].deliver(small);
    }
    await running[worker].keep(mail);
    for (let count = 0; count < 3; count++) {
      await running[worker].deliver(mail);
    }
  }
  const result = [];
  for (let round = 0; round < rounds; round++) {
    const row = {};
    for (const worker of WORKERS) {
      const before = running[worker].cpu();
      for (let count = 0; count < mails; count++) {
        await running[worker].deliver(mail);
      }
      row[worker] = (running[worker].cpu() - before) / mails / 1e6;
    }
    result.push(row);
  }
  Workerd.stopAll();
  return result;
}

export { HEAP_LIMIT, HIGHEST_RATIO, MIB, KIB, MOST_COPIES, SIZES, SMALL, WARM_UP_MAILS, WHOLE_MS, WORKERS, Workerd, mailOf, times };
