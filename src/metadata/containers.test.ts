import { containerStoreSuite } from "../../test/support/container-store-suite.ts";
import { temporaryMetadata } from "../../test/support/metadata.ts";

containerStoreSuite("metadata's container store", async () => {
  const metadata = await temporaryMetadata();
  return { store: metadata.containers, close: () => metadata.close() };
});
