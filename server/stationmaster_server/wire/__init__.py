"""What every servicer shares at the border between protobuf and the product: pages, names, fields, the caller."""
