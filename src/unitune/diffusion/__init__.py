"""Pure tensor mathematics of diffusion sampling; imports torch only."""
