"""Sandboxes that are containers of a Docker Engine on this machine. docs/docker.md says how it is put together."""
