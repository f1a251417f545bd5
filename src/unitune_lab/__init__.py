"""One trainer, for CPU and GPU, of the embedded models that the package ships.

These are the diffusion stages, their text encoder, the judge and the two CLIPs. Nothing under
src/unitune imports this package.
"""
