"""The builder: a model version in, a verified environment out."""
