"""A run on disk: names and formats of its files, read and written here alone. No Lightning."""
