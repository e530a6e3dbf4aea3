"""timm and transformers: checkpoints from and to them, registration there."""
