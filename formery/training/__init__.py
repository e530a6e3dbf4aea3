"""Training: the fit loop, its recipes."""
