"""Files that are whole or not there, and processes that share a folder.

IN bytes, tables, names of work. OUT files, folders, hashes, leases, locks, paths of a workspace.
"""
