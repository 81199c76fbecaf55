"""How many replicas served entities have: who changes it, and the decisions that are kept."""
