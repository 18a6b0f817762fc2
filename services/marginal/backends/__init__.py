"""Language models in process; every class is a LanguageModel."""
