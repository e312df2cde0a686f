"""Shapes: which columns of a raw row make its conversations.

In: one row, and the settings of its source. Out: examples, or a drop with its reason.
"""
