"""What stays on disk: the store of tunings, the records of runs; room for them, and costs."""
