"""One file per format; each defines `export(model, folder)`, which writes a `nas.model.Model` and names its files."""
