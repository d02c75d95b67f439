"""A prior learned from arrays, in one call of Python: the laps of the workflow, without it."""
