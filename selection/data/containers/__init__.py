"""Containers: files, folders, datasets and tables become raw rows.

In: a path, a URL, a dataset's name or a table in memory. Out: RawRow, numbered as in its file.
"""
