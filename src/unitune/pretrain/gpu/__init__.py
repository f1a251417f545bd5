"""Pretraining on one large GPU: data made on the device, every part in minutes; the parts of experiments/pretrain_gpu.py."""
