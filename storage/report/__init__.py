"""Pages of a selection, of two selections and of a benchmark, each one HTML file.

Input: a selection in the snapshot. Output: a page that asks the network for nothing.
"""
