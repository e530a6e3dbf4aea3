"""Published models: their specs, the names of their weights, their cards."""
