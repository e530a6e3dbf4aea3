"""Stems: raw input to tokens."""

INDEX = {
    "conv": "conv:ConvStem",
    "patches": "patches:Patches",
    "tokens": "tokens:Tokens",
}
