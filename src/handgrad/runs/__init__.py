"""Files of a run: their names and formats, used only in this package. Does not import Lightning."""
