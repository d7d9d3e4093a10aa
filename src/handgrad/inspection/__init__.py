"""Inspection of trained networks: evaluation, prediction, export, lesson page."""
