"""Real MLflow models to test with, and the bodies to send them."""
