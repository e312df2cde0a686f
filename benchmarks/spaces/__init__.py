"""Which reduction, weights and spaces rank best: a grid over stored vectors of labelled rows."""
