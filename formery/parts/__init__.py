"""Small modules, one idea a file: stems, mixers, channels, norms, positions, merges, schemes, heads."""
