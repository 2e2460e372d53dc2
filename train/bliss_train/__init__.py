"""Labels access logs by rule, fits a CatBoost model on `blissctl features`' rows, and says what the model is worth."""

__version__ = "0.1.0"
