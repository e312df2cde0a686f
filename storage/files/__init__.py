"""The workspace's folders, files that are whole or not there, and locks and leases of processes.

IN bytes, tables, names of work. OUT files, folders, hashes, leases, locks, paths of a workspace.
"""
