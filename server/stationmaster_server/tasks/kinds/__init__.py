"""Kinds of tasks: one class in one file each. `base.py` is what they implement, also those of plug-ins."""
