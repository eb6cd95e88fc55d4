"""The sandbox host: it runs steps in sandboxes and serves SSH channels inside them."""
