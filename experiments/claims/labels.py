"""Headings of scores and costs in the tables of claims."""

SCORES = {  # progress is told beside the success only: a blurred picture makes progress too
    "both": "edit success (judge)",
    "progress": "progress to the exact target inside the mask",
    "appear": "what was asked for appears (judge)",
    "stay": "the rest stays (judge)",
    "alignment": "alignment (pocket CLIP)",
    "mse_outside": "error outside the mask",
    "psnr": "PSNR to the base image, dB",
    "stlpips": "ST-LPIPS to the base image",
    "direction": "direction of change (pocket CLIP)",
}
COSTS = {  # tuning and what is stored: of all tunings of an image; the others: of an edit
    "tuning s": "tuning of an image, s",
    "optimiser steps": "optimiser steps of an image",
    "tuning evaluations": "network evaluations: tuning of an image",
    "sampling s": "an edit, s",
    "sampling evaluations": "network evaluations: an edit",
    "stored MiB": "stored of an image, MiB",
}
