"""Merges: from one stage to the next, fewer and wider tokens."""

INDEX = {
    "conv": "conv:ConvMerge",
    "convolved_attention": "convolved_attention:ConvolvedAttentionMerge",
    "cross_scale": "cross_scale:CrossScaleMerge",
    "patch_merging": "patch_merging:PatchMerging",
    "pooling": "pooling:PoolingMerge",
}
