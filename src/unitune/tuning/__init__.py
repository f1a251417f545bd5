"""Fine-tuning a stage on one image: which parameters, which batches, which optimiser, and a Lightning module that survives interruption."""
