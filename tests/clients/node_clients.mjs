// Reads a product and an unknown one in one protocol, and prints what its client got, as one line of JSON:
//   node node_clients.mjs PROTOCOL URL DESCRIPTORS, the file of a google.protobuf.FileDescriptorSet
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary, toBinary, create, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import * as grpc from "@grpc/grpc-js";
import { loadFileDescriptorSetFromBuffer } from "@grpc/proto-loader";
import grpcWeb from "grpc-web";
import XMLHttpRequest from "xhr2";

const [protocol, url, file] = process.argv.slice(2);
const image = readFileSync(file);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, image));
const SERVICE = "aiomesh.storefront.v1.StorefrontService";
const service = registry.getService(SERVICE);
const { input, output } = service.method.getProduct;
const errorInfo = registry.getMessage("google.rpc.ErrorInfo");

// Each returns a function that reads a product by its SKU, as the JSON of its response, or throws a Failure.
class Failure extends Error {
  constructor(code, reason) {
    super(`${code} ${reason}`);
    Object.assign(this, { code, reason });
  }
}

function connectEs(transport) {
  const client = createClient(service, transport);
  return async (sku) => {
    try {
      return toJson(output, await client.getProduct({ sku }));
    } catch (error) {
      throw new Failure(error.code, error.findDetails(errorInfo)[0].reason);
    }
  };
}

function grpcJs() {
  const loaded = loadFileDescriptorSetFromBuffer(image, { longs: String });
  const Client = grpc.loadPackageDefinition(loaded).aiomesh.storefront.v1.StorefrontService;
  const client = new Client(url, grpc.credentials.createInsecure());
  return (sku) =>
    new Promise((resolve, reject) =>
      client.GetProduct({ sku }, (error, response) =>
        error ? reject(new Failure(error.code, reasonOf(error.metadata.get("grpc-status-details-bin")[0]))) : resolve(response),
      ),
    );
}

function googleGrpcWeb(format) {
  globalThis.XMLHttpRequest = XMLHttpRequest;
  const method = new grpcWeb.MethodDescriptor(
    `/${SERVICE}/GetProduct`, grpcWeb.MethodType.UNARY, Object, Object,
    (request) => toBinary(input, create(input, request)), (bytes) => toJson(output, fromBinary(output, bytes)),
  );
  const client = new grpcWeb.GrpcWebClientBase({ format });
  return async (sku) => {
    try {
      return await client.unaryCall(`${url}/${SERVICE}/GetProduct`, { sku }, {}, method);
    } catch (error) {
      throw new Failure(error.code, reasonOf(Buffer.from(error.metadata["grpc-status-details-bin"], "base64")));
    }
  };
}

function reasonOf(bytes) {
  const status = fromBinary(registry.getMessage("google.rpc.Status"), bytes);
  return fromBinary(errorInfo, status.details[0].value).reason;
}

const CLIENTS = {
  "connect-node Connect": () => connectEs(createConnectTransport({ httpVersion: "1.1", baseUrl: url })),
  "connect-node Connect, binary": () =>
    connectEs(createConnectTransport({ httpVersion: "1.1", baseUrl: url, useBinaryFormat: true, useHttpGet: true })),
  "connect-node gRPC-Web": () => connectEs(createGrpcWebTransport({ httpVersion: "1.1", baseUrl: url })),
  "connect-node gRPC": () => connectEs(createGrpcTransport({ baseUrl: `http://${url}` })),
  "grpc-js": grpcJs,
  "grpc-web": () => googleGrpcWeb("binary"),
  "grpc-web text": () => googleGrpcWeb("text"),
};

const product = CLIENTS[protocol]();
const found = await product("TEA-0001");
const failure = await product("NO-1").catch((error) => error);
console.log(JSON.stringify({ sku: found.product.sku, code: failure.code, reason: failure.reason, text: failure.message }));
process.exit(0);
