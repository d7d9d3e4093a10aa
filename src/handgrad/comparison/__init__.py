"""Comparison of runs: load, pool into cells, test, plot, report. Imports neither torch nor Lightning."""
