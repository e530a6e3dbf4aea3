"""Checks behind the claims on the cards."""
