"""Where model files come from (MLflow) and where they are kept (the artifact volume)."""
