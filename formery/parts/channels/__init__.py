"""Channel mixers: what works on each token alone, but for norms over the grid inside."""

INDEX = {
    "grn_mlp": "grn_mlp:GRNMLP",
    "mixture_of_experts": "mixture_of_experts:MixtureOfExperts",
    "mlp": "mlp:MLP",
    "none": "none:Nothing",
    "normed_mlp": "normed_mlp:NormedMLP",
    "swiglu": "swiglu:SwiGLU",
}
