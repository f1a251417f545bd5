"""What stays on disk: the store of tunings, the records of runs, room to write."""
