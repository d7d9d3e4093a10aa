"""Training under Lightning: data, the two engines, schedules, callbacks; build.py makes a run of a configuration."""
