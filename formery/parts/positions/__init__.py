"""Positions: added to tokens, or turning queries and keys."""

INDEX = {
    "learned": "learned:Learned",
    "rope": "rope:RoPE",
    "sincos": "sincos:SinCos",
}
