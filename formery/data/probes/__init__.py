"""Probes: drawn sequences that tell what a sequence model can recall, copy and track; nothing is downloaded.

Each is a function of its options that returns a `Probe`; batches are pure functions of (seed, step).
"""

INDEX = {
    "mqar": "recall:mqar",
    "phonebook": "recall:phonebook",
    "induction": "recall:induction",
    "needle": "recall:needle",
    "copy": "copying:copy",
    "selective_copy": "copying:selective_copy",
    "parity": "tracking:parity",
    "permutations": "tracking:permutations",
    "listops": "listops:listops",
    "pathfinder": "pathfinder:pathfinder",
    "topics_text": "long_inputs:topics_text",
    "topics_retrieval": "long_inputs:topics_retrieval",
    "digits_pixels": "long_inputs:digits_pixels",
}
