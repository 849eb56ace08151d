"""Prompts: versions, labels, rules, customizations, experiments, and what became of them."""
