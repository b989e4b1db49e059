"""Training: the loop, optimizers, regularization, distillation, resuming."""
