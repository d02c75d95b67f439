"""What figures are drawn by: style, and the kinds of panels that they share."""
