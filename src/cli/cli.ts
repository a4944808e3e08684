import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { nearest } from "../lib/nearest.ts";
import { messageOf } from "../model/errors.ts";
import type { GlobalOptions } from "./options.ts";
import { tell, watchOutput } from "./output.ts";
import { formatVersion } from "./version.ts";

/** What a command line may come to: 0 done, 1 it failed, 2 it was no valid command line. */
const EXIT_FAILURE = 1;
const EXIT_USAGE = 2;

const SERVE = "serve";

/** A command that is not over by then is worth compiling. */
const LONG_MS = 1000;

/** The daemon logs, and what runs pods asks the runtime first. */
const WATCH_THEMSELVES: ReadonlySet<string> = new Set([SERVE, "run", "apply"]);

const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "panic"];

/** Runs one command line; the exit code. Errors are told in one line on stderr. */
export async function runCli(args: readonly string[]): Promise<number> {
  const program = createProgram();
  try {
    await addLazyCommands(program, args);
    await program.parseAsync(args, { from: "user" });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
    tell(messageOf(error));
    return EXIT_FAILURE;
  }
}

const HELP_FOOTER = `
Without a command the daemon runs in the foreground. Without --config it reads
/etc/bunkerd/config.toml if that exists. Options win over the file.

Signals: SIGTERM and SIGINT let calls in flight end and exit with 0, SIGHUP takes
over the log level from the file, SIGUSR1 logs the daemon's state.
Exit codes: 0 done, 1 failed, 2 not a valid command line.`;

function createProgram(): Command {
  const program = new Command("bunkerd")
    .description("containerd's API, on-disk formats and configuration in one executable")
    .usage("[options] [command]")
    .addOption(new Option("-c, --config <file>", "config.toml of containerd, version 1 to 4"))
    .option("-a, --address <path>", "socket of the gRPC server")
    .option("--root <dir>", "where persistent data lies")
    .option("--state <dir>", "where data lies that a reboot may lose")
    .addOption(new Option("-l, --log-level <level>", "how much is logged").choices(LOG_LEVELS))
    .version(formatVersion(), "-v, --version", "print the version")
    .helpOption("-h, --help", "show help")
    .exitOverride()
    .configureOutput({
      outputError: (text) => tell(text.replace(/^error: /, "")),
      writeOut: (text) => {
        watchOutput();
        process.stdout.write(text);
      },
    })
    .showHelpAfterError(false)
    .addHelpText("after", HELP_FOOTER)
    .hook("preAction", (_program, command) => {
      if (!WATCH_THEMSELVES.has(command.name())) watchOutput();
      // The executable starts as short commands want it (`build/compile.ts`).
      if (command.name() !== SERVE) setTimeout(() => Bun.unsafe.setJITPolicy(1), LONG_MS).unref();
    });
  addServe(program);
  addConfig(program);
  addPublish(program);
  for (const command of program.commands) showGlobalOptions(command);
  program
    .command("version")
    .description("print the version")
    .action(() => void process.stdout.write(`${formatVersion()}\n`));
  return program;
}

function addServe(program: Command): void {
  program
    .command(SERVE, { isDefault: true })
    .description("run the daemon in the foreground (the default command)")
    .allowExcessArguments(true)
    .usage("[options]")
    .action(async (_options: object, command: Command) => {
      const word = command.args[0];
      if (word !== undefined) refuseUnknown(program, word);
      const { runServe } = await import("./serve.ts");
      await runServe(command.optsWithGlobals<GlobalOptions>());
    });
}

/** Whatever is no command arrives at the default one. */
function refuseUnknown(program: Command, word: string): never {
  const meant = nearest(
    word,
    program.commands.map((command) => command.name()),
  );
  const advice = meant === undefined ? "" : `, did you mean ${JSON.stringify(meant)}?`;
  return program.error(`unknown command ${JSON.stringify(word)}${advice}`, { exitCode: EXIT_USAGE });
}

function addConfig(program: Command): void {
  const config = program.command("config").description("look into the configuration");
  config
    .command("default")
    .description("print the default configuration")
    .action(async () => (await import("./config.ts")).printDefault());
  config
    .command("dump")
    .description("print what the daemon would run with: files, imports, flags, defaults")
    .option("--origins", "say behind each value where it was set")
    .action(async (_options: object, command: Command) => {
      const { printEffective } = await import("./config.ts");
      printEffective(command.optsWithGlobals<GlobalOptions & { origins?: boolean }>());
    });
  config
    .command("migrate")
    .description("print the file's settings and its imports' in the terms of the newest version")
    .action(async (_options: object, command: Command) => {
      const { printMigrated } = await import("./config.ts");
      printMigrated(command.optsWithGlobals<GlobalOptions>());
    });
  config
    .command("check")
    .description("check the configuration; fails on an unknown key or a wrong value")
    .action(async (_options: object, command: Command) => {
      const { checkConfig } = await import("./config.ts");
      if (!checkConfig(command.optsWithGlobals<GlobalOptions>())) process.exitCode = EXIT_FAILURE;
    });
}

function addPublish(program: Command): void {
  program
    .command("publish")
    .description("publish an event, as shims do: a google.protobuf.Any on stdin")
    .requiredOption("--topic <topic>", "topic of the event", (topic: string) => {
      if (topic === "") throw new InvalidArgumentError("topic required to publish event");
      return topic;
    })
    .option("--namespace <namespace>", "namespace of the event", "")
    .action(async (_options: object, command: Command) => {
      const { runPublish } = await import("./publish.ts");
      await runPublish(command.optsWithGlobals<GlobalOptions & { topic: string; namespace: string }>());
    });
}

/** Commands whose code is only worth loading when they are named, or when help lists them. */
async function addLazyCommands(program: Command, args: readonly string[]): Promise<void> {
  const wanted = (name: string): boolean =>
    args.includes(name) || args.some((arg) => /^(?:-h|--help|help)$/.test(arg));
  if (wanted("db")) program.addCommand(inheriting(program, (await import("./db.ts")).dbCommand()));
  if (wanted("gc"))
    program.addCommand(showGlobalOptions(inheriting(program, (await import("./gc.ts")).gcCommand())));
  if (wanted("pod")) {
    // Behind `pod` short options are its own: -c is a container there.
    program.enablePositionalOptions();
    program.addCommand(
      inheriting(program, (await import("./pod.ts")).podCommand(args[args.indexOf("pod") + 1])),
    );
  }
  if (wanted("openapi")) {
    program
      .command("openapi")
      .description("print an OpenAPI document of every RPC as JSON over HTTP")
      .action(async () => (await import("./openapi.ts")).printOpenapi());
  }
}

/** Help of a command and those below it names the options that stand before them as well. */
function showGlobalOptions(command: Command): Command {
  command.configureHelp({ showGlobalOptions: true });
  for (const child of command.commands) showGlobalOptions(child);
  return command;
}

/** A command that was made elsewhere, with the ways of its new parent: how errors are told, what they exit with. */
function inheriting(parent: Command, command: Command): Command {
  command.copyInheritedSettings(parent);
  for (const child of command.commands) inheriting(command, child);
  return command;
}
