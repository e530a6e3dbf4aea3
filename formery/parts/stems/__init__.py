"""Stems: raw input to tokens."""

INDEX = {
    "conv": "conv:ConvStem",
    "convs": "convs:Convs",
    "cross_scale": "cross_scale:CrossScaleStem",
    "frame_convolutions": "frame_convolutions:FrameConvolutions",
    "frames": "frames:Frames",
    "patches": "patches:Patches",
    "scales": "scales:Scales",
    "spiking_convolutions": "frame_convolutions:SpikingConvolutions",
    "tokens": "tokens:Tokens",
    "pixel_words": "pixel_words:PixelWords",
    "tokens_to_token": "tokens_to_token:TokensToToken",
    "word_convs": "word_convs:WordConvs",
}
