"""Norms over the channels of (B, *grid, C), or over grid and channels together."""

INDEX = {
    "batch": "batch:Batch",
    "global_response": "global_response:GlobalResponse",
    "group1": "group1:GroupOne",
    "layer": "layer:Layer",
    "rms": "rms:RMS",
    "rms_around_one": "rms_around_one:RMSAroundOne",
}
