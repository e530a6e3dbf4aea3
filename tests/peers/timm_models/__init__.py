"""timm's own model tests on formery's image models.

    python -m tests.peers.timm_models FILE [NAME ...] [-- pytest's options]

FILE is `tests/test_models.py` of timm's repository (it is not in the wheel). NAMEs are formery's variants, the
smallest of each system unless given. Tests that download weights are left out.
"""
