"""unitune: text-driven editing of one image by fine-tuning a diffusion model on it."""
