"""The REST API: HTTP in front of the storefront."""
