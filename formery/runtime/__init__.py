"""Generation, prediction, export."""
