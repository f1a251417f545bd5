"""Trains what the package ships: the pocket cascade, the pocket CLIPs and the judge of the scenes world."""

from unitune.compat import ensure_torchvision

ensure_torchvision()
