"""The audit trail: written with every change and every refusal, put in order, listed and watched."""
