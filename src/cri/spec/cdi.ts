import type { ContainerConfig } from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError, quote } from "../../model/errors.ts";
import type { SpecSettings } from "./settings.ts";
import type { Spec } from "./spec.ts";

/** Annotations with this prefix name devices too, separated by commas. */
const ANNOTATION_PREFIX = "cdi.k8s.io/";

type CdiSettings = Pick<SpecSettings, "enable_cdi" | "cdi_spec_dirs">;

/** @throws Unknown if devices are asked for and CDI is off */
export function assertCdi({ CDIDevices: devices }: ContainerConfig, { enable_cdi }: CdiSettings): void {
  if (enable_cdi || devices.length === 0) return;
  const names = devices.map(({ name }) => name).join(", ");
  throw new BunkerdError(
    "Unknown",
    `CDI devices (${names}) requested but CDI support is explicitly disabled`,
  );
}

/** Adds what the specs of the machine say of the devices that a request names; `report` hears of specs that are wrong. @throws Unknown */
export async function applyCdi(
  spec: Spec,
  config: ContainerConfig,
  settings: CdiSettings,
  report: (message: string) => void,
): Promise<void> {
  assertCdi(config, settings);
  if (!settings.enable_cdi) return;
  const asked = config.CDIDevices.map(({ name }) => name);
  const names = [...new Set([...asked, ...annotatedDevices(config.annotations)])];
  if (names.length === 0) return;
  const { injectDevices } = await import("./cdi-devices.ts");
  injectDevices(spec, names, settings.cdi_spec_dirs, report);
}

function annotatedDevices(annotations: Readonly<Record<string, string>>): string[] {
  return Object.entries(annotations)
    .filter(([key]) => key.startsWith(ANNOTATION_PREFIX))
    .flatMap(([, value]) => value.split(","))
    .map((name) => {
      if (isQualifiedName(name)) return name;
      throw new BunkerdError(
        "Unknown",
        `failed to parse CDI device annotations: invalid CDI device name ${quote(name)}`,
      );
    });
}

const VENDOR_OR_CLASS = /^[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?$/;
const DEVICE = /^[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?$/;

/** `vendor.com/class=device` (CDI's `pkg/parser`). */
export function isQualifiedName(name: string): boolean {
  const [, vendor = "", kind = "", device = ""] = /^([^/=]*)\/([^=]*)=(.*)$/s.exec(name) ?? [];
  return isVendorOrClass(vendor) && isVendorOrClass(kind) && isDeviceName(device);
}

export function isVendorOrClass(name: string): boolean {
  return VENDOR_OR_CLASS.test(name);
}

export function isDeviceName(name: string): boolean {
  return DEVICE.test(name);
}
