"""Parameters, MACs, latency, memory."""
