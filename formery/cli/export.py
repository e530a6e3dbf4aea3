"""`formery export`."""

def command() -> None:
    """Not yet."""
