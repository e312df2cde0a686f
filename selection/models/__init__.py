"""One language model: its files, the model cut off above the hookpoints, and its activations.

Input: a folder or hub name, rendered samples (token ids and the mask of counted tokens).
Output: batches of activations at the hookpoints, token by token.
"""
