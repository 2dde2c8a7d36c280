"""Making a trained net smaller: pruning, and integers for weights and activations."""
