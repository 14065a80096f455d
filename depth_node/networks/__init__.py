"""Networks: one file each, opening with its passport; the registry finds them by name."""
