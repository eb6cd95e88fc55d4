"""What the services share: the contract (subjects, messages, streams) and the adapters to run on it."""
