"""The relay: SSH transport and user authentication, and nothing above."""
