"""Tasks: head, loss, metrics and what the data must be."""
