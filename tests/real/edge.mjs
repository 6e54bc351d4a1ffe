// The Workers that edge.py asks for, as options for Miniflare: each route is the Worker
// itself, and "driver" (edge_driver.js) has every variant of its source under a folder.
import { readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

const SOURCE = fileURLToPath(new URL("../../worker/src", import.meta.url));
const DRIVER = fileURLToPath(new URL("edge_driver.js", import.meta.url));

/**
 * @param {Object} settings with "variants", {name: {file: changed text}}, and "routes",
 *     {name: {variant, vars}}.
 */
export default function workers({ variants, routes }) {
  const source = Object.fromEntries(
    readdirSync(SOURCE).map((file) => [file, readFileSync(`${SOURCE}/${file}`, "utf-8")]),
  );
  return [
    {
      name: "driver",
      modules: [
        { type: "ESModule", path: "edge_driver.js", contents: readFileSync(DRIVER, "utf-8") },
        ...Object.entries(variants).flatMap(([name, changed]) => modules(`${name}/`, { ...source, ...changed })),
      ],
    },
    ...Object.entries(routes).map(([name, { variant, vars }]) => ({
      name,
      routes: [`${name}.test/*`],
      bindings: vars,
      modules: modules("", { ...source, ...variants[variant] }),
    })),
  ];
}

// index.js first, which is where a Worker begins.
function modules(folder, files) {
  return ["index.js", ...Object.keys(files).filter((file) => file !== "index.js")].map((file) => ({
    type: "ESModule",
    path: folder + file,
    contents: files[file],
  }));
}
