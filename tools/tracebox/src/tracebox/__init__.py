"""The embedded trace backend: receives OTLP over gRPC, serves Jaeger's query API and a page."""
