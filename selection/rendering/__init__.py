"""Rendering: messages become the tokens that a model reads, and which of them are content.

In: messages and tools. Out: Rendered, and where in a turn each content token lies.
"""
