"""What `extract` consists of: its options resolved, the sample table, rows made ready for the UNet."""
