"""One file per experiment; each defines `config`, an `Experiment`, and says in its docstring what to expect."""
