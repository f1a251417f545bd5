"""Prompt-to-Prompt (arXiv 2208.01626): edits that take attention from the base image's chain."""
