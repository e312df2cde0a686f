"""Rendered samples to vectors on disk, by one process, helpers, GPUs or a Ray cluster.

IN model, tokenizer, SAE, rendered pool. OUT shards, calibrations, trained SAEs.
"""
