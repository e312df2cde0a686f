"""Why a sample was picked or not, whether anything was changed, what is forgotten or repeated.

Input: a workspace and ids. Output: explanations, findings, bundles, comparisons.
"""
