/** What becomes of a command whose output cannot be written. */

const EXIT_FAILURE = 1;

let readerGone = (): void => process.exit(0);

/** A reader such as `head` that has enough is no failure: the command ends, but for those that have more to do than to print, which say what. */
export function whenReaderGoes(instead: () => void): void {
  readerGone = instead;
}

/** To be called before anything is printed, or, since streams take their time to be made, once others are at work. */
export function watchOutput(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on("error", endOutput);
}

function endOutput(error: NodeJS.ErrnoException): void {
  if (error.code === "EPIPE") {
    readerGone();
    return;
  }
  tell(error.message);
  process.exit(EXIT_FAILURE);
}

/** One line on stderr whatever the text holds. */
export function tell(message: string): void {
  process.stderr.write(`bunkerd: ${message.trim().replace(/\s*\n\s*/g, " ")}\n`);
}
