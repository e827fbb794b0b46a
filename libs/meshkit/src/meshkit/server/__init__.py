"""Servers of grpc.aio: what surrounds each handler."""
