"""The composition root: builds everything by plain constructors, starts it in order and stops it in reverse."""
