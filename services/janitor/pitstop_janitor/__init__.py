"""The janitor: finds what is idle, expired, lost or orphaned, and says so."""
