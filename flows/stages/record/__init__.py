"""What a run decided, as rows of the catalog's tables.

IN decided selections with everything they rest on. OUT table name -> rows.
"""
