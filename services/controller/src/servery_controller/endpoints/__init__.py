"""Use cases of endpoints, and all SQL about them."""
