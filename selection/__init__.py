"""What decides: arrays and records in and out; `records` are shared, `api` is for Python users."""
