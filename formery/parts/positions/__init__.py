"""Positions: added to tokens or to the scores of attention, or turning queries and keys."""

INDEX = {
    "distance_table": "distance_table:DistanceTable",
    "learned": "learned:Learned",
    "log_offsets": "log_offsets:LogOffsets",
    "offset_mlp": "offset_mlp:OffsetMLP",
    "relative_table": "relative_table:RelativeTable",
    "rope": "rope:RoPE",
    "rope_llama3": "rope_llama3:RoPELlama3",
    "sincos": "sincos:SinCos",
    "yarn": "yarn:YaRN",
}
