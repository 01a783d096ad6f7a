"""The nouns: frozen values, no I/O; imports nothing else of meshtls."""
