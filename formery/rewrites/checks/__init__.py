"""What the papers behind the rewrites claim, as functions that measure it here on small models with drawn weights."""
