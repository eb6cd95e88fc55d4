"""How long tests wait for a state before they call it a failure."""

from __future__ import annotations

from typing import Final

PATIENCE: Final = 50.0
"""Seconds. It costs nothing while all is well, and a busy machine may take ten times what a quiet one takes."""
