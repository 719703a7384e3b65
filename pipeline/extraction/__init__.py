"""What `extract` consists of: its options, the sample table, the plan, rows made ready for the UNet."""
