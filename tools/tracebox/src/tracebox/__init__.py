"""The embedded trace backend: takes OTLP over gRPC, answers Jaeger's query API, shows a page."""
