"""How blocks are wired through depth."""
