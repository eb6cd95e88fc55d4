"""Recordings of terminals, for projects that want them."""
