"""Makes what the package ships: the embedded diffusion stages, their text encoder, the judge and the
two CLIPs, by one trainer for CPU and GPU. Nothing under src/unitune imports it.
"""
