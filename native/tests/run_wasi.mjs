// Runs a WASI program in node: run_wasi.mjs PROGRAM [ARGUMENT ...]. The program may read the
// folders among its arguments.
import { readFileSync, statSync } from "node:fs";
import { WASI } from "node:wasi";

const args = process.argv.slice(2);
const folders = args.slice(1).filter((name) => statSync(name, { throwIfNoEntry: false })?.isDirectory());
const wasi = new WASI({
  version: "preview1",
  args,
  preopens: Object.fromEntries(folders.map((name) => [name, name])),
  returnOnExit: true,
});
const program = await WebAssembly.compile(readFileSync(args[0]));
process.exitCode = wasi.start(await WebAssembly.instantiate(program, wasi.getImportObject()));
