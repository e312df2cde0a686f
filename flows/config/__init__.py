"""One pydantic config: its keys, files and presets, overrides, and the reference page.

Input: YAML and overrides. Output: a validated SelectConfig, or an error with line, field, remedy.
"""
