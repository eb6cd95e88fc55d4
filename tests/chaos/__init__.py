"""Chaos: the whole system as real processes, killed, stopped and cut off at random; in the end nothing may be amiss."""
