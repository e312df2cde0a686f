"""Prefect around the stages: tasks, progress, artifacts, signals, terminal output.

Input: running stages and finished runs. Output: artifacts, log lines, progress bars.
"""
