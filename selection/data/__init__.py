"""Reading: rows of any source become examples, messages and tools in one form.

In: a PoolSource, or rows in memory. Out: batches of POOL_SCHEMA, and every other row with the
reason why it was dropped.
"""
