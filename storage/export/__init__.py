"""Training files of a selection with their cards and manifests.

Input: a selection in the snapshot. Output: a folder of files, whole or not there.
"""
