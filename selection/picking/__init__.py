"""From a ranking to a selection: order, budget, quotas, duplicates, diversity, controls.

IN `Ranking`, `Budget`, `Rules`. OUT `Picks`, `Selection`.
"""
