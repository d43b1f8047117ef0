"""The roles of a running proxy, each its own process: supervisor, ingress, batcher, admin."""
