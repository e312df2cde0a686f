"""Values of the catalog as words for people: reasons, checks, numbers, terms.

Input: rows of the catalog. Output: sentences.
"""
