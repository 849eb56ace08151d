"""Where files are kept: a local disk, or object storage that speaks the protocol of S3."""
