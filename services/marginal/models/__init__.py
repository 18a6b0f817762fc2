"""The bundled home pair, the catalogue of models, and how a name becomes a file."""
