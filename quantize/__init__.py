"""From a checkpoint to a GGUF file."""
