"""The command saelect: parses arguments, calls flows and storage, prints text.

Input: argv. Output: lines on standard output, an exit code.
"""
