"""A trained network opened again: scored, asked about pictures, exported, made into a page."""
