// Runs Cloudflare's R2 simulator for r2.py, which starts this file with one argument, a
// file of JSON: {"bucket", "accessKeyId", "secretAccessKey", "folder"}, and for Workers
// beside the bucket {"workers"}, a module that gives them (edge.mjs).
// Prints the S3 endpoint as one line once it answers; ends, and removes the folder, when
// standard input is closed.
import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

// Resolved from worker/, the one place in the repository with an npm lock file.
const { Miniflare } = createRequire(new URL("../../worker/package.json", import.meta.url))("miniflare");
const settings = JSON.parse(readFileSync(process.argv[2], "utf-8"));
const { bucket, accessKeyId, secretAccessKey, folder } = settings;
const nothing = { name: "nothing", modules: true, script: 'export default { fetch() { return new Response("R2"); } };' };
const workers = settings.workers ? (await import(settings.workers)).default(settings) : [nothing];

const miniflare = new Miniflare({
  host: "127.0.0.1",
  port: 0,
  cf: false, // or it asks Cloudflare for a sample of request.cf
  unsafeTriggerHandlers: true, // the route that hands a mail to a Worker
  r2Persist: join(folder, "r2"),
  // To the log: nobody reads on in standard output, and a full pipe stops the writer.
  handleRuntimeStdio: (stdout, stderr) => [stdout, stderr].forEach((stream) => stream.pipe(process.stderr)),
  workers: workers.map((worker) => ({
    compatibilityDate: "2026-01-01",
    r2Buckets: { MAIL: { id: bucket, s3Credentials: { accessKeyId, secretAccessKey } } },
    ...worker,
  })),
});

process.stdin.resume();
process.stdin.on("end", async () => {
  await miniflare.dispose();
  // Here too, for the case that whoever started this was killed.
  await rm(folder, { recursive: true, force: true });
  process.exit();
});

console.log(new URL("/cdn-cgi/local/r2/s3", await miniflare.ready).href);
