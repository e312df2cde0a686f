"""Rendered samples to vectors on disk, by one process, helpers, GPUs or Ray; trains SAEs.

IN model, tokenizer, SAE, rendered pool. OUT shards, calibrations, trained SAEs.
"""
