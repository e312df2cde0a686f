"""Dictionaries of one model, trained alike and compared on labelled targets."""
