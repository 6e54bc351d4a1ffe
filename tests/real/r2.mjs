// Runs Cloudflare's R2 simulator for r2.py, which starts this file with one argument:
// {"bucket", "accessKeyId", "secretAccessKey", "folder"} as JSON.
// Prints the S3 endpoint as one line once it answers; ends, and removes the folder, when
// standard input is closed.
import { rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

// Resolved from worker/, the one place in the repository with an npm lock file.
const { Miniflare } = createRequire(new URL("../../worker/package.json", import.meta.url))("miniflare");
const { bucket, accessKeyId, secretAccessKey, folder } = JSON.parse(process.argv[2]);

const miniflare = new Miniflare({
  host: "127.0.0.1",
  port: 0,
  cf: false, // or it asks Cloudflare for a sample of request.cf
  modules: true,
  script: 'export default { fetch() { return new Response("R2 for the tests"); } };',
  compatibilityDate: "2026-01-01",
  r2Persist: join(folder, "r2"),
  r2Buckets: { MAIL: { id: bucket, s3Credentials: { accessKeyId, secretAccessKey } } },
});

process.stdin.resume();
process.stdin.on("end", async () => {
  await miniflare.dispose();
  // Here too, for the case that whoever started this was killed.
  await rm(folder, { recursive: true, force: true });
  process.exit();
});

console.log(new URL("/cdn-cgi/local/r2/s3", await miniflare.ready).href);
