"""Training of TopK, BatchTopK and Matryoshka SAEs, resumable to the bit.

Input: batches of activations and `TrainSettings`. Output: a `SparseCoder` and a `TrainReport`.
"""
