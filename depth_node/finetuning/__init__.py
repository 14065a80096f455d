"""Self-supervised fine-tuning of a trained network on recordings (torch)."""
