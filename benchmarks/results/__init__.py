"""Figures of the pages: each a JSON of a benchmark with its command, machine, date and commit."""
