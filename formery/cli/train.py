"""`formery train`."""

def command() -> None:
    """Not yet."""
