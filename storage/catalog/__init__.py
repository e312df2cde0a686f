"""The DuckDB catalog: schema, commits, published snapshot, look-ups, chain of hashes, SQL.

Input: rows of tables. Output: records and results of queries.
"""
