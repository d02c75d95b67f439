"""The page of a run: one file with all results, their captions, and what came out."""
