"""Objects of the Python API: samples, models, vectors, rankings, picks. `selection.api` has them.

Input: samples in memory, a model with its SAE, plain settings. Output: vectors, rankings, picks.
"""
