"""A prior in use."""
