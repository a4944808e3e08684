/** What is done when nobody reads any longer what a command prints. */
let act = (): void => process.exit(0);

/** Commands that have more to do than to print say what. */
export function whenReaderGoes(instead: () => void): void {
  act = instead;
}

export function readerGone(): void {
  act();
}
