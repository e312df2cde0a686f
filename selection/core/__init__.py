"""What every room uses: errors, hashes, redaction of secrets, sparse rows, words.

In: plain values. Out: InputError, ids, SparseRows, words and their hashes.
"""
