"""Ground floor: errors, hashes, redaction, sparse rows, words.

In: plain values. Out: InputError, ids, SparseRows, words and their hashes.
"""
