"""The mesh as local processes."""
