"""Raw networks from diffusers, adapted to one call, and the folder they are saved in."""
