"""Merges: from one stage to the next, fewer and wider tokens."""

INDEX = {
    "conv": "conv:ConvMerge",
    "patch_merging": "patch_merging:PatchMerging",
}
