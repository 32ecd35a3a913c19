"""Everything that yields a frozen denoiser."""
