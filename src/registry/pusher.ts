import { fail } from "../model/errors.ts";
import type { Pusher } from "../model/remotes.ts";
import type { Repository } from "./resolve.ts";

export function createPusher(_: Repository): Pusher {
  throw fail("Unimplemented", "push");
}
