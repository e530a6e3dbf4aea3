"""Channel mixers: what works on each token alone."""

INDEX = {
    "mlp": "mlp:MLP",
    "none": "none:Nothing",
    "swiglu": "swiglu:SwiGLU",
}
