"""`python -m formery` is the command line."""

import sys

if __name__ == "__main__":
    try:
        from .cli import main

        main()
    except KeyboardInterrupt:  # before the command line was there to answer it
        sys.exit(130)
