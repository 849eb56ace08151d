"""What runs turns: one module for each runtime, and the steps they are made of."""
