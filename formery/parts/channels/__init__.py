"""Channel mixers: what works on each token alone."""

INDEX = {
    "mlp": "mlp:MLP",
    "none": "none:Nothing",
    "normed_mlp": "normed_mlp:NormedMLP",
    "swiglu": "swiglu:SwiGLU",
}
