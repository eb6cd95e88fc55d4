"""The scheduler: a log with one writer; it decides slots, queue and deadlines."""
