"""Checkout: the host's git, held short; a cache of what it fetched; the tree that goes into the sandbox."""
