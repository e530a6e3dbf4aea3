"""Rewrites: model to model, exact or measured."""
