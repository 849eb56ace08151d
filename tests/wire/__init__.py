"""The border between protobuf and the product."""
