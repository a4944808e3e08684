import { BunkerdError } from "../model/errors.ts";
import type { SandboxController } from "../model/sandboxes.ts";
import type { Cri } from "./cri.ts";

/** @throws Unknown if none is called so */
export function controllerOf(
  { controllers }: Pick<Cri, "controllers">,
  sandboxer: string,
): SandboxController {
  const controller = controllers.get(sandboxer);
  if (controller === undefined)
    throw new BunkerdError("Unknown", `failed to get sandbox controller by ${sandboxer}`);
  return controller;
}
