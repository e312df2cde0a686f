"""Published SAE formats: each a table, as in `libraries` or `releases`, read by `layout`.

Input: a folder, a file or a hub name. Output: a `SparseCoder`, or what is known before its weights
are read. Two formats are written as well. To add a format, write its table and name it in `find`.
"""
