"""Pure maths on tensors: the denoiser contract, noise levels, solvers. Imports no other room."""
