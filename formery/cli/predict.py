"""`formery predict`."""

def command() -> None:
    """Not yet."""
