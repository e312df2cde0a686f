"""What people ask of the catalog: look-ups of selections, picks and samples, and their own SQL.

Input: the published snapshot. Output: rows; nothing is written.
"""
