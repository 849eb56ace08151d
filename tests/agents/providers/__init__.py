"""Whole conversations through the providers' own libraries, with servers that speak their protocols."""
