"""Fine-tuning on one image: which parameters, which batches, which optimiser, what is kept."""
