"""Runs the mesh on a local Kubernetes cluster that kind creates: `make kind-up` and `make kind-down`."""
