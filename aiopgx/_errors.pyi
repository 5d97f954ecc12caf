errors_known: bool
