"""Models at work: exported, quantised, predicting over files."""
