"""A PostgreSQL of our own, from a wheel: started with the first server of a data folder, ended with the last."""
