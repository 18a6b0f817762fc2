"""The bundled home pair, its card, and the catalogue of named pairs."""
