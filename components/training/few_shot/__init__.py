"""Training on few rows a class: contrastive fine-tuning, a fitted head, and the choice of a method."""
