"""Token mixers: what lets one token see others."""

INDEX = {
    "attention": "attention:Attention",
    "depthwise_conv": "depthwise_conv:DepthwiseConv",
    "fire": "spiking:Fire",
    "gated_deltanet": "gated_deltanet:GatedDeltaNet",
    "identity": "identity:Identity",
    "legendre_memory": "legendre_memory:LegendreMemory",
    "mamba": "mamba:Mamba",
    "mamba2": "mamba2:Mamba2",
    "pooling": "pooling:Pooling",
    "random": "random:Random",
    "spatial_fc": "spatial_fc:SpatialFC",
    "spatial_mlp": "spatial_mlp:SpatialMLP",
    "spiking_legendre_memory": "spiking:SpikingLegendreMemory",
    "spiking_mlp": "spiking:SpikingMLP",
}
