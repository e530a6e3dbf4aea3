"""`formery shrink`."""

def command() -> None:
    """Not yet."""
