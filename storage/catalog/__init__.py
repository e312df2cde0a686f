"""The DuckDB catalog: schema, commits, published snapshot, chain of hashes.

Input: rows of tables. Output: a database that is whole, and its published copy.
"""
