"""Blocks: sublayers (mixers and channel mixers) along a residual scheme."""

INDEX = {
    "block": "block:Block",
    "sequence": "sequence:Sequence",
    "widening": "widening:Widening",
}
