"""Language models of every kind; each class keeps the promises of `routing.ports.LanguageModel`."""
