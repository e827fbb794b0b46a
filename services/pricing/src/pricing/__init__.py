"""The pricing microservice."""
