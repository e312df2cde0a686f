"""What is kept of a pool: examples, renderings, vectors, sketches, indexes.

IN rows, rendered samples, vectors. OUT the same by row number or key, in bounded memory.
"""
