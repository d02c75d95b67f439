"""What is shown: tables, figures, exported priors."""
