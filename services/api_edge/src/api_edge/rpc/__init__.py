"""The RPCs of the storefront: `aiomesh.storefront.v1` in front of the same object as REST."""
