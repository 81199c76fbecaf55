"""Tells people and programs how updates ended."""
