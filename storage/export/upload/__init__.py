"""Exports on their way out: to a dataset of the hub, or to a folder of an object store.

Input: an export of the workspace, whole. Output: its files there, and the record in the catalog.
"""
