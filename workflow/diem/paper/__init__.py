"""What is the paper's alone: heuristics, restoration, published numbers."""
