"""Figures of finished runs: they read pictures and records, never a model."""
