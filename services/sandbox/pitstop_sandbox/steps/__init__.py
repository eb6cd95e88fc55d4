"""One step: its environment, its files, its process, and the way of its output into the log."""
