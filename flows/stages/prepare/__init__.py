"""Files of the config to a prepared, rendered pool; what can be refused without weights is.

IN config, pool and exemplar files. OUT prepared pool, rendering, exemplars, eligible examples.
"""
