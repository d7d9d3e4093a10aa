"""Training with Lightning: data, both engines, schedules, callbacks; build.py builds a run from a configuration."""
