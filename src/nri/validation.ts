import { create } from "@bufbuild/protobuf";
import {
  type Container,
  Event,
  type PodSandbox,
  ValidateContainerAdjustmentRequestSchema,
} from "#gen/nri/pkg/api/v1alpha1/api_pb.ts";
import { BunkerdError, quote, within } from "../model/errors.ts";
import type { CreationMerge } from "./merge.ts";
import type { Plugin } from "./plugin.ts";
import { type ValidatorConfig, validateAdjustment } from "./validator.ts";

export interface Validation {
  readonly plugins: readonly Plugin[];
  readonly pod: PodSandbox;
  /** Before any plugin has changed it. */
  readonly container: Container;
  readonly merge: CreationMerge;
  /** Of the built-in validator. */
  readonly config: ValidatorConfig;
  readonly signal: AbortSignal | undefined;
}

/** The built-in validator's name among the plugins. */
const BUILT_IN = { index: "00", name: "default-validator" };

/** Asks the validators, all at once. @throws FailedPrecondition with a validator's reason, what a validator fails with */
export async function validate(validation: Validation): Promise<void> {
  const { plugins, pod, container, merge, config, signal } = validation;
  const validators = plugins.filter((plugin) => plugin.subscribes(Event.VALIDATE_CONTAINER_ADJUSTMENT));
  if (validators.length === 0 && !config.enable) return;
  const request = create(ValidateContainerAdjustmentRequestSchema, {
    pod,
    container,
    adjust: merge.adjust,
    update: [...merge.updates.others],
    owners: merge.owners.record,
    plugins: [
      ...(config.enable ? [BUILT_IN] : []),
      ...plugins.map(({ index, base }) => ({ index, name: base })),
    ],
  });
  if (config.enable) validateAdjustment(config, request);
  const verdicts = await Promise.allSettled(
    validators.map(async (plugin) => {
      const verdict = await plugin.call(
        Event.VALIDATE_CONTAINER_ADJUSTMENT,
        (client, options) => client.validateContainerAdjustment(request, options),
        signal,
      );
      // One that has gone in between cannot have agreed.
      if (verdict === undefined)
        throw new BunkerdError("Unavailable", `validator plugin ${plugin.name} failed`);
      if (!verdict.reject) return;
      const reason = verdict.reason || "unknown rejection reason";
      const words = `validator ${quote(plugin.name)} rejected container adjustment, reason: ${reason}`;
      throw new BunkerdError("FailedPrecondition", words);
    }),
  );
  for (const verdict of verdicts)
    if (verdict.status === "rejected") throw within("NRI validation", verdict.reason);
}
