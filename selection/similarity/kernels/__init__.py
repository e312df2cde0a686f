"""Compiled loops of generalized Jaccard, sum of minima / sum of maxima.

Input: arrays of rows and of queries, by row numbers. Output: exact integer sums of minima, norms,
and scores, one division each. No policy: callers check, split into blocks and run threads.
"""
