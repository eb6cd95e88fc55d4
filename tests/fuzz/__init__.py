"""Mutated conversations against what strangers, clients and taken relays can reach: `make fuzz N=1000000 SEED=7`."""
