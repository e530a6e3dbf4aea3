"""Residual schemes: how a block's sublayers meet the residual stream."""

INDEX = {
    "between": "between:Between",
    "chain": "chain:Chain",
    "detour": "detour:Detour",
    "gated": "gated:Gated",
    "ladder": "ladder:Ladder",
    "post": "post:Post",
    "pre": "pre:Pre",
    "reordered": "reordered:Reordered",
    "single": "single:Single",
}
