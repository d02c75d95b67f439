"""Numbers, and the card of each."""
