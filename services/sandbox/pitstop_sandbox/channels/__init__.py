"""The connection layer of SSH (RFC 4254), served at the sandbox's end of the link."""
