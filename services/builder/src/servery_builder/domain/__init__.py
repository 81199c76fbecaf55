"""Decisions of the builder: pure functions of what was read, no I/O."""
