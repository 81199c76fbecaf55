"""What the controller tells the installation's operator (docs/metrics.md)."""
