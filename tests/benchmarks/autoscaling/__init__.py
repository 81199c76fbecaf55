"""The simulator of docs/autoscaling.md: the scaler's own decisions against those of its peers, hours in seconds."""
