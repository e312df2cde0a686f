"""`saelect bench retrieval`: any methods on a labelled pool, each result a file.

IN `BenchRequest`. OUT measures, rows of the catalog.
"""
