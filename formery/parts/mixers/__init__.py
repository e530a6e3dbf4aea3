"""Token mixers: what lets one token see others."""

INDEX = {
    "attention": "attention:Attention",
    "depthwise_conv": "depthwise_conv:DepthwiseConv",
    "gated_deltanet": "gated_deltanet:GatedDeltaNet",
    "identity": "identity:Identity",
    "pooling": "pooling:Pooling",
    "random": "random:Random",
    "spatial_fc": "spatial_fc:SpatialFC",
    "spatial_mlp": "spatial_mlp:SpatialMLP",
}
