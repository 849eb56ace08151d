"""Other programs that do this work, installed by the benchmark into environments of their own."""
