import { runCli } from "./cli/cli.ts";

// No process.exit: what a command wrote into a pipe must arrive first.
void runCli(process.argv.slice(2)).then((code) => {
  process.exitCode = code;
});
