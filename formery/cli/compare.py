"""`formery compare`."""

def command() -> None:
    """Not yet."""
