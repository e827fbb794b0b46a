"""The gateways that `make up GATEWAY=NAME` runs in front of the edge."""
