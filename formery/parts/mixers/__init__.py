"""Token mixers: what lets one token see others."""

INDEX = {
    "attention": "attention:Attention",
    "deltanet": "deltanet:DeltaNet",
    "depthwise_conv": "depthwise_conv:DepthwiseConv",
    "fire": "spiking:Fire",
    "gated_deltanet": "gated_deltanet:GatedDeltaNet",
    "gla": "gla:GLA",
    "hgrn": "hgrn:HGRN",
    "hgrn2": "hgrn2:HGRN2",
    "identity": "identity:Identity",
    "legendre_memory": "legendre_memory:LegendreMemory",
    "linear_attention": "linear_attention:LinearAttention",
    "mamba": "mamba:Mamba",
    "mamba2": "mamba2:Mamba2",
    "pooling": "pooling:Pooling",
    "random": "random:Random",
    "retention": "retention:Retention",
    "spatial_fc": "spatial_fc:SpatialFC",
    "spatial_mlp": "spatial_mlp:SpatialMLP",
    "spiking_legendre_memory": "spiking:SpikingLegendreMemory",
    "spiking_mlp": "spiking:SpikingMLP",
}
