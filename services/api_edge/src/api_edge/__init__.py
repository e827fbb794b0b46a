"""The asynchronous edge: REST and gRPC in front of one storefront."""
