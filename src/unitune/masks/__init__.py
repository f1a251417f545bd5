"""Where a picture may change: sources of masks for any sampler and any method."""
