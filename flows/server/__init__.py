"""`saelect serve`: Prefect's server and pages, deployments with forms, a worker.

Input: a workspace and an address. Output: a running server; runs started from its pages.
"""
