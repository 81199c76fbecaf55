"""From a model's requirements to a virtual environment, cached by content."""
