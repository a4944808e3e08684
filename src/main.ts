import { runCli } from "./cli/cli.ts";

// Not process.exit: what a command wrote into a pipe must arrive first.
process.exitCode = await runCli(process.argv.slice(2));
