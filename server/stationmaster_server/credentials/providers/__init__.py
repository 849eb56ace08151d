"""Where the keys come from that everything else is encrypted with."""
