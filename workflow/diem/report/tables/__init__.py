"""Tables of metric rows, at full precision and for the eye. Nothing is computed here."""
