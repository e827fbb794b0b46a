// What a page does: it calls the edge of another origin, whose URL is in its query, over Connect and over gRPC-Web.
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";

const baseUrl = new URLSearchParams(location.search).get("edge");
const image = base64Decode(document.getElementById("descriptors").textContent.trim());
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, image));
const service = registry.getService("aiomesh.storefront.v1.StorefrontService");
const errorInfo = registry.getMessage("google.rpc.ErrorInfo");

async function call(transport) {
  const client = createClient(service, transport);
  let traceId = "";
  const response = await client.getProduct({ sku: "TEA-0001" }, { onTrailer: (found) => (traceId = found.get("x-trace-id")) });
  const error = await client.getProduct({ sku: "NO-1" }).catch((failure) => failure);
  return { sku: response.product.sku, code: error.code, reason: error.findDetails(errorInfo)[0].reason, traceId };
}

const calls = {
  connect: createConnectTransport({ baseUrl }),
  get: createConnectTransport({ baseUrl, useHttpGet: true }),
  web: createGrpcWebTransport({ baseUrl }),
};
window.found = {};
for (const [name, transport] of Object.entries(calls)) {
  window.found[name] = await call(transport).catch((error) => String(error));
}
window.done = true;
