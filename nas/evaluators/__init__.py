"""One file per evaluator; each defines `evaluator(space, **options) -> nas.types.Evaluator`."""
