"""What decides besides the score: quotas, near-duplicates, diversity, and all of them as `Rules`.

IN plain settings, vectors and texts of pool rows. OUT `Rules`, `QuotaWalk`, `DuplicateFinder`.
"""
