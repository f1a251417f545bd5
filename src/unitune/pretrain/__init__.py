"""Trains what the package ships: the pocket cascade, the pocket CLIP and the judge of the scenes world."""
