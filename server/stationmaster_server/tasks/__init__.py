"""The room of tasks: what is done once, again and again, or after something else."""
