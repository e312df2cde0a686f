"""The Python API's own objects; `selection.api` offers them.

Input: samples in memory, a model with its SAE, plain settings. Output: vectors, rankings, picks.
"""
