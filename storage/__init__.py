"""What is kept: files of the workspace, the DuckDB catalog, exports, reports and their audit."""
