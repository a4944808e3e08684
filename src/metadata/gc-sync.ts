import type { CollectionScheduler } from "../model/collection.ts";
import type { ImageStore } from "../model/images.ts";
import type { LeaseStore } from "../model/leases.ts";

/*
 * Stores whose synchronous deletes end when what they left is collected (containerd `plugins/leases/local.go`,
 * `plugins/services/images/local.go`).
 */

export function collectingImages(images: ImageStore, collection: CollectionScheduler): ImageStore {
  return {
    ...images,
    async delete(scope, name, options = {}) {
      await images.delete(scope, name, options);
      if (options.sync === true) await collection.request(scope.signal);
    },
  };
}

export function collectingLeases(leases: LeaseStore, collection: CollectionScheduler): LeaseStore {
  return {
    ...leases,
    async delete(scope, id, options = {}) {
      await leases.delete(scope, id, options);
      if (options.sync === true) await collection.request(scope.signal);
    },
  };
}
