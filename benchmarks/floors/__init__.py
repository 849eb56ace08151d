"""The least that any program on this stack must do for the same promise, in a few lines each."""
