"""Channels of grpc.aio: what surrounds each call that a client makes."""
