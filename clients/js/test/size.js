// The client, without its comments, is under 6 KB compressed.
import { readFileSync } from "node:fs";
import { brotliCompressSync, gzipSync } from "node:zlib";
import ts from "typescript";

const MAX = 6_000;
const source = ["transport.js", "taskwire.js"]
  .map((name) => readFileSync(new URL(`../src/${name}`, import.meta.url), "utf8"))
  .join("\n");
const bare = ts.transpileModule(source, { compilerOptions: { removeComments: true, target: ts.ScriptTarget.ES2022 } });
const bytes = gzipSync(bare.outputText, { level: 9 }).length;
const brotli = brotliCompressSync(source).length;
console.log(`client: ${bytes} bytes (gzip, comments removed), ${brotli} (brotli, as it is), at most ${MAX}`);
if (bytes > MAX || brotli > MAX) throw new Error("the client has grown too large");
