"""`saelect bench finetune`: train on each arm's rows, measure on held-out ones, a file a run.

IN `FinetuneRequest`. OUT gains with intervals, rows of the catalog.
"""
