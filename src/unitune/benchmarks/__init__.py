"""Sets of images with edit prompts; all of them become Examples through one format (manifest.py)."""
