"""What runs on the device: Triton's language, which is Python's grammar with a meaning and types of its own."""
