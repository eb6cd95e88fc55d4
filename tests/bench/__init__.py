"""What Pitstop costs, beside what its peers cost on the same machine in the same minutes. `python -m tests.bench`."""
