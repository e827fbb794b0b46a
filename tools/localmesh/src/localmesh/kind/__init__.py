"""The mesh on a Kubernetes cluster on this machine, made by kind: `make kind-up` and `make kind-down`."""
