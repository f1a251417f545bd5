"""The model card: what the pocket models can do, measured on compositions they never saw."""
