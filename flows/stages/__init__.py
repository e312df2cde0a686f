"""The stages of a run, from a config to files of the workspace and rows of the catalog.

IN a config, a workspace, ids of what the stage before made. OUT files, and records for the flow.
`session.py` holds what a run opens once; a stage computes nothing itself: `selection` does.
"""
