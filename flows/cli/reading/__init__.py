"""Commands that read the catalog, the vectors, and the models and SAEs that fit.

Input: what is kept. Output: lines on standard output, exports and reports.
"""
