"""One script per study beside this file; `engine` runs them, `ledger` keeps what they found."""
