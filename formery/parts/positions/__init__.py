"""Positions: added to tokens, or turning queries and keys."""

INDEX = {
    "learned": "learned:Learned",
    "rope": "rope:RoPE",
    "rope_llama3": "rope_llama3:RoPELlama3",
    "sincos": "sincos:SinCos",
    "yarn": "yarn:YaRN",
}
