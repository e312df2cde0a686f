"""Files of the workspace, the DuckDB catalog, exports, reports, and the audit of all of them."""
