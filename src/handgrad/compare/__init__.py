"""The comparison of runs: loaded, pooled into cells, tested, drawn, put on a page. Without torch or Lightning."""
