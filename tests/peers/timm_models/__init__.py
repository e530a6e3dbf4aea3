"""timm's own model tests on formery's image models.

    python -m tests.peers.timm_models FILE [NAME ...] [-- pytest's options]

FILE is `tests/test_models.py` of timm's repository (it is not in the wheel). NAMEs are formery's variants, the
smallest of each family unless given. What is left out is printed, with the reason; `-k` among pytest's options takes
the place of that choice.
"""
