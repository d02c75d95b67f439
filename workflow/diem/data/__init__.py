"""Clean data, observations, and what a user brings."""
