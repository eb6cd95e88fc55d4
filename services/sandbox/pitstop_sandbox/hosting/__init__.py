"""The host around its jobs: room, heartbeat, starts, commands, and what an earlier process left."""
