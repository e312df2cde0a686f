"""The files of a language model: which they are, whether they are whole, where it can be read.

Input: a folder or hub name. Output: `ResolvedModel` with sizes and the hash of its weights, and
hookpoints; no weights are loaded.
"""
