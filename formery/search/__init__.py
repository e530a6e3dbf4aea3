"""Search: from data and a budget to the hybrid that serves best."""
