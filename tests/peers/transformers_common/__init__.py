"""transformers' own common model tests on a hybrid of ours.

    pip download --no-deps --no-binary transformers transformers==5.23.0 && tar xzf transformers-5.23.0.tar.gz
    pip install parameterized
    python -m tests.peers.transformers_common transformers-5.23.0

They are in transformers' source distribution, not in its wheel. Two helpers that they import are in neither; empty
classes take their places.
"""
