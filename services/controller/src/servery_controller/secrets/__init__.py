"""Secrets: scopes, values that are encrypted at rest, who may read them, and models that are given them."""
