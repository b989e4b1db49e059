// Runs a WASI program in node: run_wasi.mjs PROGRAM [ARGUMENT ...]. The program may read the
// folders among its arguments.
//
// Node 20 sometimes ends with a segmentation fault while such a program returns, whatever program
// it is (one without any SIMD too). So another node runs it and writes its exit status the moment
// it has it, and a run that ended by a signal is repeated.
import { spawnSync } from "node:child_process";
import { readFileSync, statSync, writeSync } from "node:fs";
import { fileURLToPath } from "node:url";

const STATUS = 3; // the descriptor that the exit status is written to
const INNER = "TERSELM_RUN_WASI";

async function run(args) {
  const { WASI } = await import("node:wasi");
  const folders = args
    .slice(1)
    .filter((name) => statSync(name, { throwIfNoEntry: false })?.isDirectory());
  const wasi = new WASI({
    version: "preview1",
    args,
    preopens: Object.fromEntries(folders.map((name) => [name, name])),
    returnOnExit: true,
  });
  const program = await WebAssembly.compile(readFileSync(args[0]));
  const status = wasi.start(await WebAssembly.instantiate(program, wasi.getImportObject()));
  writeSync(STATUS, `returned ${status}`);
}

const ATTEMPTS = 4;

function runApart(args, attempts = ATTEMPTS) {
  const done = spawnSync(
    process.execPath,
    ["--no-warnings", fileURLToPath(import.meta.url), ...args],
    { env: { ...process.env, [INNER]: "1" }, stdio: ["inherit", "inherit", "inherit", "pipe"] },
  );
  const returned = /^returned (\d+)$/.exec(String(done.output[STATUS]));
  if (returned === null && done.signal !== null && attempts > 1) {
    console.error(`run_wasi: node ended by ${done.signal}; once more`);
    return runApart(args, attempts - 1);
  }
  if (returned === null) {
    console.error(`run_wasi: the program did not return (${done.signal ?? done.status})`);
    return 1;
  }
  return Number(returned[1]);
}

const args = process.argv.slice(2);
if (process.env[INNER]) {
  await run(args);
} else {
  process.exitCode = runApart(args);
}
