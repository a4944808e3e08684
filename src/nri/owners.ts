/** Who has changed what of which container: each thing by one plugin only (NRI's `pkg/api/owners.go`). */
import { create } from "@bufbuild/protobuf";
import {
  CompoundFieldOwnersSchema,
  Field,
  type FieldOwners,
  FieldOwnersSchema,
  FieldSchema,
  type OwningPlugins,
  OwningPluginsSchema,
} from "#gen/nri/pkg/api/v1alpha1/api_pb.ts";
import { ownValue, setOwn } from "../lib/record.ts";
import { BunkerdError, quote } from "../model/errors.ts";
import { markRemoved, unmarked } from "./names.ts";

export class Owners {
  readonly record: OwningPlugins = create(OwningPluginsSchema);

  /** Takes a thing, or an entry of it, for a plugin. @throws FailedPrecondition if another has it */
  claim(containerId: string, field: Field, plugin: string, entry?: string): void {
    const owners = this.#entries(containerId, field, entry);
    const key = entry ?? String(field);
    const owner = ownValue(owners, key);
    if (owner !== undefined) {
      // Who has taken another's away may set its own.
      const { key: other, removed } = unmarked(owner);
      if (!removed || other !== plugin) throw conflict(field, plugin, other, entry);
    }
    setOwn(owners, key, plugin);
  }

  /** Takes away what another plugin has set: only the one that did may set it again. */
  clear(containerId: string, field: Field, plugin: string, entry?: string): void {
    setOwn(this.#entries(containerId, field, entry), entry ?? String(field), markRemoved(plugin));
  }

  /** Hooks of several plugins run one after another. */
  addHooks(containerId: string, plugin: string): void {
    const owners = this.#entries(containerId, Field.OciHooks, undefined);
    const key = String(Field.OciHooks);
    const earlier = ownValue(owners, key);
    setOwn(owners, key, earlier === undefined ? plugin : `${earlier},${plugin}`);
  }

  #entries(containerId: string, field: Field, entry: string | undefined): Record<string, string> {
    const owners = ownValue(this.record.owners, containerId) ?? this.#add(containerId);
    // Map keys of numbers are property names.
    if (entry === undefined) return owners.simple as Record<string, string>;
    const compound = owners.compound[field] ?? create(CompoundFieldOwnersSchema);
    owners.compound[field] = compound;
    return compound.owners;
  }

  #add(containerId: string): FieldOwners {
    const owners = create(FieldOwnersSchema);
    setOwn(this.record.owners, containerId, owners);
    return owners;
  }
}

function conflict(field: Field, plugin: string, other: string, entry: string | undefined): BunkerdError {
  const what = FieldSchema.value[field]?.name ?? String(field);
  const words = `plugins ${quote(plugin)} and ${quote(other)} both tried to set ${what}${entry === undefined ? "" : ` ${entry}`}`;
  return new BunkerdError("FailedPrecondition", words);
}
