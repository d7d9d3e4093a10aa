"""The comparison of runs: collected, pooled into cells, tested, drawn and put on a page. Nothing here imports torch."""
