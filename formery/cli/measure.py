"""`formery measure`."""

def command() -> None:
    """Not yet."""
