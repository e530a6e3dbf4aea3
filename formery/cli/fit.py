"""`formery fit`."""

def command() -> None:
    """Not yet."""
