"""`formery verify`."""

def command() -> None:
    """Not yet."""
