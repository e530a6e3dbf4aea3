"""Search over specs."""
