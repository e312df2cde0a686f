"""Shapes: one raw row, whatever its columns are called, becomes conversations or a reason.

In: a row (column -> JSON value) and the PoolSource's settings. Out: Example, or Drop.
"""
